"""What is said of a run, and the test by whole runs with permuted labels."""

from pathlib import Path

import numpy as np
import pytest

from autospec import AutoSpecError, experiment
from autospec.config.checks import checked
from autospec.config.grid import composed
from autospec.methods import methods_paragraph
from autospec.plan import planned
from autospec.retraining import retrained

CONF = Path(__file__).resolve().parent.parent / "conf"
TINY = ["figure=fig4", "epochs=4", "width=3", "dataset.features=[Left-Hippocampus,Left-Amygdala,Right-Amygdala]"]


def _config(tmp_path, *overrides):
    return checked(composed(CONF, [*TINY, f"output_dir={tmp_path}", *overrides]))


def test_the_paragraph_says_what_was_done(tmp_path, caplog):
    plan = planned(_config(tmp_path, "panel=A", "introspection.permutations=30", "introspection.permutation_epochs=2"))
    with caplog.at_level("INFO"):
        experiment.run(plan)
    assert "relabelled people took" in caplog.text
    text = methods_paragraph(plan.folder.path)
    made = ("Simulated data", "HC 63, SZ 61", "autoencoder for 4 epochs")
    for expected in (*made, "30 permutations", "within sex", "at 2 epochs"):
        assert expected in text


def test_a_classifier_of_the_groups_is_said_not_to_be_tested(tmp_path):
    plan = planned(_config(tmp_path, "panel=B"))
    experiment.run(plan)
    assert "Groups were not tested: diagnosis is what the network is trained" in methods_paragraph(plan.folder.path)


def test_retraining_tests_what_is_classified(tmp_path):
    table = retrained(_config(tmp_path, "panel=B"), 19)
    whole = table[(table.per == "trajectory") & (table.test == "permutation")]
    assert set(whole.layer) == {"hidden.0", "head"}
    assert whole.p.between(0.05, 1).all()
    assert np.allclose(whole.p * 20, (whole.p * 20).round())
    with pytest.raises(AutoSpecError, match="retrain: is for a classifier of two classes"):
        retrained(_config(tmp_path, "panel=A"), 19)
