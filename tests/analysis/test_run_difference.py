"""Where two runs part: at the epoch at which they were made to, and nowhere where they are one."""

import numpy as np
import pytest
from small_runs import record

from autospec import AutoSpecError
from autospec.analysis.run_difference import COLUMNS, find_parting, list_unshared


@pytest.fixture(scope="module")
def run():
    return record(epochs=6).spectra


def test_one_run_is_equal_to_itself(run):
    table = find_parting(run, record(epochs=6).spectra)
    assert list(table.columns) == list(COLUMNS)[1:]
    assert table["epoch"].isna().all()
    assert set(table["verdict"]) == {"equal within rounding at all 6 common epochs"}
    assert table["log2_ratio"].tolist() == [0, 0]


@pytest.mark.parametrize("changed_at", [0, 2, 4])
def test_runs_part_one_epoch_after_a_step_that_differs(run, changed_at):
    """The gradient of an epoch is taken before its step."""
    other = record(epochs=6, changed_at=changed_at).spectra
    table = find_parting(run, other)
    assert table["epoch"].tolist() == [changed_at + 1] * 2
    assert table["verdict"].str.startswith(f"part at epoch {changed_at + 1}, most in σ").all()
    ratio = run.scaled("0").sel(group="all", index=1)[-1] / other.scaled("0").sel(group="all", index=1)[-1]
    assert table.loc["0", "log2_ratio"] == pytest.approx(np.log2(float(ratio)))


def test_runs_that_never_agreed_differ_from_the_first_epoch(run):
    table = find_parting(run, record(epochs=6, rate=0.1, width=5, groups=("SZ", "HC"), every=2).spectra)
    assert set(table["verdict"]) == {"equal within rounding at all 3 common epochs"}
    other = record(epochs=6, scale=2.0).spectra
    assert find_parting(run, other)["verdict"].str.match("differ from epoch 0 on").all()


def test_what_cannot_be_compared_says_why(run):
    table = find_parting(run, record(epochs=6, width=2).spectra)
    assert table.loc["0", "verdict"] == "not of one shape: 5 and 2 singular values"
    with pytest.raises(AutoSpecError, match="the runs share no layer: in memory has 0; in memory has 2"):
        find_parting(record(layers=["0"]).spectra, record(layers=["2"]).spectra)


def test_what_only_one_run_has_is_named(run):
    config = "dataset:\n  name: mnist\n  seed: {}\nwidth: 32\n"
    first = record(attributes={"config": config.format(1)}).spectra
    second = record(attributes={"config": config.format(2)}, layers=["0"], groups=("SZ", "HC", "x")).spectra
    assert list_unshared(first, second) == [
        "layers of the first run alone: 2",
        "groups of the second run alone: x",
        "settings of the first run alone: dataset.seed=1",
        "settings of the second run alone: dataset.seed=2",
    ]
    assert list_unshared(run, run) == []
