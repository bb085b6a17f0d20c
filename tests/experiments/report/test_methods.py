"""What is said of a run."""

from pathlib import Path

import numpy as np

from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.plan import plan_run
from autospec.experiments.report import methods
from autospec.experiments.run import run
from autospec.store.permutations import PermutationRatios
from autospec.store.permuted_pairs import NOT_ASKED

CONF = Path(__file__).resolve().parents[3] / "conf"
TINY = ["figure=fig4", "epochs=4", "width=3", "dataset.features=[Left-Hippocampus,Left-Amygdala,Right-Amygdala]"]


def _config(tmp_path, *overrides):
    return check_config(compose_config(CONF, [*TINY, f"output_dir={tmp_path}", *overrides]))


def test_the_paragraph_says_what_was_done(tmp_path, caplog):
    plan = plan_run(_config(tmp_path, "panel=A", "introspection.permutations=30", "introspection.permutation_epochs=2"))
    with caplog.at_level("INFO"):
        run(plan)
    assert "permutations took" in caplog.text
    text = methods.methods_paragraph(plan.folder.path)
    made = ("simulated FreeSurfer volumes of 124 subjects (HC 63, SZ 61)", "Each feature was z-scored.")
    trained = (
        "A multi-layer perceptron (width 3, depth 1, ReLU)",
        "as an autoencoder (mean squared error) for 4 epochs",
    )
    tested = (
        "HC (63 subjects) and SZ (61)",
        "permuted 30 times within sex",
        "at 2 epochs",
        "of the 31 partitions",
        "association",
    )
    for expected in (*made, *trained, *tested):
        assert expected in text


def test_a_classifier_of_the_groups_is_said_not_to_be_tested(tmp_path):
    plan = plan_run(_config(tmp_path, "panel=B"))
    run(plan)
    text = methods.methods_paragraph(plan.folder.path)
    assert "to classify diagnosis (cross-entropy)" in text
    assert "Not tested: HC and SZ (diagnosis is what the network is trained to tell apart" in text
    assert "permutations of" not in text


def test_pairs_that_were_refused_are_named_beside_those_that_were_tested():
    learned, few = "diagnosis is learned", "a group of 2 subjects; 3 are needed"
    null = PermutationRatios(
        epochs=np.array([0]),
        pairs=(("HC/men", "HC/women"),),
        subjects=np.array([[20, 10]]),
        strata=("site",),
        refused={("HC", "SZ"): learned, ("HC/men", "SZ/men"): learned, ("men", "x"): few, ("men", "y"): NOT_ASKED},
        permutation_design="",
        ratios={"head": {"log_norm": np.zeros((1, 1, 20), dtype=np.float32)}},
        loss=None,
    )
    text = methods.testing_sentences(null)
    assert "Compared were HC/men (20 subjects) and HC/women (10)" in text
    assert f"Not tested: HC and SZ, HC/men and SZ/men ({learned})." in text
    assert f"Not tested: men and x ({few})." in text
    assert NOT_ASKED not in text
