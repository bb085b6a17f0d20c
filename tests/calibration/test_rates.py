from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from autospec.calibration.conditions import BALANCED, NULLS
from autospec.calibration.rates import COLUMNS, clopper_pearson, markdown, rates, within
from autospec.calibration.study import NO_EFFECT, Condition, study
from autospec.config.checks import checked
from autospec.config.grid import composed
from autospec.figures.calibration import draw_calibration

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="module")
def base():
    network = ["dataset=freesurfer", "architecture=mlp", "width=4", "activation=tanh", "learning_rate=0.03"]
    return checked(composed(CONF, network))


def test_the_interval_is_exact():
    # scipy.stats.beta.ppf: Clopper & Pearson 1934
    expected = beta.ppf(0.005, 50, 951), beta.ppf(0.995, 51, 950)
    assert clopper_pearson(50, 1000) == pytest.approx(expected)


def test_rates_count_what_is_at_most_alpha():
    studies = pd.DataFrame({"test": "t", "stage": "late", "p": [0.05, 0.06, np.nan, 0.01]})
    table = rates(studies, "a null", "3:9")
    assert list(table.columns) == list(COLUMNS)
    assert (table.rate[0], table.runs[0]) == (0.5, 4)
    assert "| t, late | 0.500 |" in markdown(table)
    assert within(table) == (1, 1)


def test_every_kind_of_study_is_planned():
    conditions = [cell.condition for cell in NULLS]
    assert {condition.task.value for condition in conditions} == {"autoencoding", "classification"}
    assert {condition.groups for condition in conditions} == {"24:24", "12:36"}


def test_a_study_is_the_same_again_and_its_picture_is_drawn(base, tmp_path):
    condition = Condition(NO_EFFECT, BALANCED)
    first = study(condition, base, 3)
    pd.testing.assert_frame_equal(first, study(condition, base, 3))
    assert first.p.notna().all()
    table = pd.concat([rates(first, "a null", "24:24"), rates(first, "autoencoder, effect 2", "24:24")])
    draw_calibration(table, tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_primary_test_keeps_its_rate_and_has_power(base):
    null = pd.concat([study(Condition(NO_EFFECT, (12, 36)), base, seed) for seed in range(150)])
    primary = rates(null, "null", "12:36").set_index("test").loc[["permutation, early", "permutation, late"]]
    assert (primary.low <= 0.05).all()
    strong = pd.concat([study(Condition(NO_EFFECT, (24, 72), effect=8.0), base, seed) for seed in range(20)])
    found = rates(strong, "effect", "24:72").set_index("test")
    assert found.rate["permutation, family-wise, early"] > 0.8
