from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from autospec.analysis.permutation import permutation_tests
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.config.schema import Task
from autospec.experiments.validation import study as calibration
from autospec.experiments.validation.conditions import BALANCED, CONFOUNDED, NULLS, POWER
from autospec.experiments.validation.picture import COLOURS, draw_calibration
from autospec.experiments.validation.rates import (
    COLUMNS,
    clopper_pearson,
    markdown,
    merge,
    ordered_tests,
    rates,
    read,
    within,
    write,
)
from autospec.experiments.validation.study import (
    NO_EFFECT,
    RETRAINED,
    SHUFFLED,
    TESTS,
    WHOLE,
    WITHIN_SEXES,
    Condition,
    study,
)

ROOT = Path(__file__).resolve().parents[3]
CONF, DOCS = ROOT / "conf", ROOT / "docs"


@pytest.fixture(scope="module")
def base():
    network = ["dataset=freesurfer", "architecture=mlp", "width=4", "activation=tanh", "learning_rate=0.03"]
    return check_config(compose_config(CONF, network))


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


def _rates(null, rate, groups="3:9"):
    studies = pd.DataFrame({"test": "t", "stage": "late", "p": [0.01] * rate + [0.5] * (100 - rate)})
    return rates(studies, null, groups)


def test_a_page_has_a_table_for_each_learner_and_one_for_power():
    kinds = {"autoencoder, effect zero": 5, "classifier, effect zero": 40, "autoencoder, effect 2": 90}
    table = pd.concat([_rates(null, rate) for null, rate in kinds.items()])
    lines = markdown(table).splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "### Autoencoder",
        "### Classifier",
        "### Autoencoder: power",
    ]
    assert "| test | effect zero, 3:9 |" in lines
    assert "| t, late | 0.050 |" in lines
    assert "| t, late | **0.400** |" in lines
    assert "| t, late | 0.900 |" in lines  # no null: there is nothing to cover


def test_the_page_shows_the_rates_of_its_file():
    page, table = (DOCS / "calibration.md").read_text(), read(DOCS / "calibration.csv")
    assert [line for line in markdown(table).splitlines() if line.startswith("|") and line not in page] == []
    studies = table.drop_duplicates(["null", "groups"]).runs.sum()
    assert f"{studies:,} studies" in page
    assert set(zip(table.null, table.groups, strict=True)) <= {
        (cell.name, cell.condition.groups) for cell in (*NULLS, *CONFOUNDED, *POWER)
    }


def test_what_is_counted_again_replaces_its_own_rows_only(tmp_path):
    path = tmp_path / "rates.csv"
    assert merge(read(path), _rates("a", 5)).rate.tolist() == [0.05]
    write(pd.concat([_rates("a", 5), _rates("a", 6, "3:3"), _rates("b", 7)]), path)
    after = merge(read(path), _rates("a", 9))
    assert dict(zip(after.null + after.groups, after.rate, strict=True)) == {"a3:9": 0.09, "a3:3": 0.06, "b3:9": 0.07}


def test_every_kind_of_study_is_planned_balanced_and_one_to_three():
    planned = {(cell.condition.task.value, cell.condition.null, cell.condition.groups) for cell in NULLS}
    for groups in ("24:24", "12:36"):
        for null in (SHUFFLED, NO_EFFECT):
            assert ("autoencoding", null, groups) in planned
            assert ("classification", null, groups) in planned
        assert ("autoencoding", WITHIN_SEXES, groups) in planned
        assert ("classification", RETRAINED, groups) in planned


def test_every_null_has_a_colour_of_its_own():
    assert len({cell.name for cell in NULLS}) <= len(set(COLOURS))


def test_no_two_studies_share_a_seed():
    cells = (*NULLS, *CONFOUNDED, *POWER)
    seeds = [seed for cell in cells for seed in cell.seeds(1000)]
    assert len(set(seeds)) == len(seeds)
    assert len({(cell.name, cell.condition.groups) for cell in cells}) == len(cells)


def test_a_study_is_the_same_again_and_its_picture_is_drawn(base, tmp_path):
    condition = Condition(NO_EFFECT, BALANCED)
    first = study(condition, base, 3)
    pd.testing.assert_frame_equal(first, study(condition, base, 3))
    assert first.p.notna().all()
    table = pd.concat([rates(first, "a null", "24:24"), rates(first, "autoencoder, effect 2", "24:24")])
    draw_calibration(table, tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").stat().st_size > 10_000


def test_the_primary_test_is_also_what_the_table_of_a_run_would_say(base, monkeypatch):
    """Over all relabelled epochs, two layers and two pairs: against the table of the same relabelled spectra."""
    seen, rows = [], calibration._permutation_rows
    monkeypatch.setattr(calibration, "_permutation_rows", lambda null, at: seen.append(null) or rows(null, at))
    found = study(Condition(WITHIN_SEXES, (12, 12)), base, 3)
    null = seen[0]
    table = permutation_tests([null], list(null.ratios), list(null.pairs), finer=False)
    primary = table[table.test == "permutation"]
    assert (len(null.epochs), len(primary)) == (6, 4)
    assert null.pairs == (("HC/men", "SZ/men"), ("HC/women", "SZ/women"))
    whole = found[found.stage == WHOLE].set_index("test").p
    assert whole["permutation"] == primary.p.iloc[0]
    assert whole["permutation, family-wise"] == primary.p_family.min()
    assert found[found.test == "permutation"].p.nunique() > 1  # the stages are not one another


def test_rows_are_in_the_order_of_the_fullest_null():
    cells = {"a": ("first", "last"), "b": ("first", "between", "last")}
    table = pd.DataFrame([(test, null, "3:3") for null, tests in cells.items() for test in tests])
    assert ordered_tests(table.set_axis(["test", "null", "groups"], axis=1)) == ["first", "between", "last"]


def test_what_a_classifier_learns_is_studied_by_retraining(base):
    found = study(Condition(RETRAINED, (6, 6), Task.classification), base, 3)
    assert set(found.stage) == {"early", "late", WHOLE}
    assert set(TESTS) <= set(found.test)
    assert not found.test.str.startswith("paper").any()
    assert np.allclose(found.p[found.test.isin(TESTS)] * 20, (found.p[found.test.isin(TESTS)] * 20).round())


@pytest.mark.slow
def test_the_primary_test_keeps_its_rate_and_has_power(base):
    null = pd.concat([study(Condition(NO_EFFECT, (12, 36)), base, seed) for seed in range(150)])
    primary = rates(null, "null", "12:36").set_index("test").loc[["permutation, early", "permutation, late"]]
    assert (primary.low <= 0.05).all()
    strong = pd.concat([study(Condition(NO_EFFECT, (24, 72), effect=8.0), base, seed) for seed in range(20)])
    found = rates(strong, "effect", "24:72").set_index("test")
    assert found.rate["permutation, family-wise, early"] > 0.8
