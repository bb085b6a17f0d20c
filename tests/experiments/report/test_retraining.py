"""The networks behind panel H: trained once, kept, and told apart from what is not tested."""

import numpy as np
import pandas as pd
import pytest

from autospec import AutoSpecError
from autospec.analysis.figure_table import every_test
from autospec.experiments import datasets
from autospec.experiments.plan import plan_run
from autospec.experiments.report import retraining
from autospec.experiments.report.inputs import inputs_tests, load_inputs, subject_inputs
from autospec.experiments.report.retraining import ratios_path, read_ratios, retrained_ratios
from autospec.experiments.retraining.retrained import Retraining
from tests.experiments.retraining.test_retrained import _fig4


@pytest.fixture
def plan(tmp_path):
    return plan_run(
        _fig4("panel=H", "introspection.retrain=19", "introspection.permutations=0", f"output_dir={tmp_path}")
    )


def test_networks_are_trained_once_and_kept(plan, caplog, monkeypatch):
    with caplog.at_level("INFO"):
        first = retrained_ratios(plan, jobs=1)
    assert "19 networks with permuted labels take about" in caplog.text
    monkeypatch.setattr(Retraining, "train", lambda *_: pytest.fail("trained again"))
    kept = retrained_ratios(plan, jobs=1)
    assert (kept.pairs, kept.strata, dict(kept.refused)) == (first.pairs, first.strata, dict(first.refused))
    assert kept.permutation_design == first.permutation_design
    assert np.array_equal(kept.loss, first.loss)
    for layer, arrays in first.ratios.items():
        for name, values in arrays.items():
            assert np.array_equal(kept.ratios[layer][name], values, equal_nan=True)


def test_other_pairs_or_numbers_of_networks_are_kept_apart(plan, tmp_path):
    paths = {ratios_path(plan)}
    for more in ("introspection.retrain=20", "figure.pairs=[[HC,SZ]]"):
        overrides = [
            "panel=H",
            "introspection.retrain=19",
            "introspection.permutations=0",
            f"output_dir={tmp_path}",
            more,
        ]
        other = plan_run(_fig4(*overrides))
        assert other.folder.run_id == plan.folder.run_id  # they are other networks than the run's
        paths.add(ratios_path(other))
    assert len(paths) == 3


def test_several_processes_give_the_same_numbers(plan, monkeypatch):
    monkeypatch.setattr(retraining, "WORTH_PROCESSES_S", -1)
    monkeypatch.setattr(retraining.joblib, "Parallel", lambda n_jobs: lambda work: [f(*a, **k) for f, a, k in work])
    both = retrained_ratios(plan, jobs=2)
    ratios_path(plan).unlink()
    one = retrained_ratios(plan, jobs=1)
    assert np.array_equal(both.ratios["head"]["log_norm"], one.ratios["head"]["log_norm"])


def test_a_file_that_cannot_be_read_says_what_to_do(plan):
    path = ratios_path(plan)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no numbers")
    with pytest.raises(AutoSpecError, match=r"\.npz: cannot be read .*; remove it, and its networks are trained anew"):
        read_ratios(path)


def test_what_is_learned_is_tested_by_its_networks_and_else_says_why_not(plan):
    ratios = retrained_ratios(plan, jobs=1)
    learned = every_test([None], ["hidden.0", "head"], [("HC", "SZ")], {}, [ratios])
    whole = learned[(learned.test == "permutation") & (learned.per == "trajectory")]
    assert whole.p.notna().all()
    assert set(whole.networks) == {20.0}
    without = every_test([None], ["hidden.0", "head"], [("HC", "SZ")], {})
    assert without.p.isna().all()
    assert without.note.str.startswith("the file holds no permutations").all()


def test_the_inputs_are_tested_by_the_same_permutations(plan):
    table = inputs_tests(plan.config, load_inputs([plan.config]))
    assert table.test.tolist() == ["inputs_mean", "inputs_covariance"]
    assert table.p.between(0.05, 1).all()
    assert set(table.relabellings) == {19}
    none = _fig4("panel=H", "introspection.retrain=0", "introspection.permutations=0")
    assert load_inputs([none]) == {}
    assert isinstance(inputs_tests(none, {}), pd.DataFrame) and inputs_tests(none, {}).empty


def test_a_subjects_inputs_are_the_mean_of_its_samples(plan):
    data = datasets.load(plan.config.dataset)
    design = Retraining(plan.config, 19, data).design.design
    found = subject_inputs(data, design)
    for subject in (0, 5):
        assert found[subject] == pytest.approx(data.inputs[design.subject == subject].mean(0), rel=1e-6)
