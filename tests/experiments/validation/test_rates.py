from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from autospec.errors import AutoSpecError
from autospec.experiments.validation.conditions import CONFOUNDED, NULLS, POWER
from autospec.experiments.validation.page import PARTS, _parts, update_page
from autospec.experiments.validation.picture import draw_calibration
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

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
CELLS = (*(cell for cells in NULLS.values() for cell in cells), *CONFOUNDED, *POWER)


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
    assert _parts(table)["intervals"] in page
    assert set(zip(table.null, table.groups, strict=True)) <= {(cell.name, cell.condition.groups) for cell in CELLS}


def test_what_is_counted_again_replaces_its_own_rows_only(tmp_path):
    path = tmp_path / "rates.csv"
    assert merge(read(path), _rates("a", 5)).rate.tolist() == [0.05]
    write(pd.concat([_rates("a", 5), _rates("a", 6, "3:3"), _rates("b", 7)]), path)
    after = merge(read(path), _rates("a", 9))
    assert dict(zip(after.null + after.groups, after.rate, strict=True)) == {"a3:9": 0.09, "a3:3": 0.06, "b3:9": 0.07}


def test_no_picture_has_more_than_four_nulls():
    assert max(map(len, NULLS.values())) <= 4


def test_no_two_studies_share_a_seed():
    seeds = [seed for cell in CELLS for seed in cell.seeds(1000)]
    assert len(set(seeds)) == len(seeds)
    assert len({(cell.name, cell.condition.groups) for cell in CELLS}) == len(CELLS)


def test_a_picture_for_each_kind_of_null_and_one_of_power(tmp_path):
    counted = [next(iter(NULLS.values()))[0], POWER[0]]
    table = pd.concat([_rates(cell.name, 5, cell.condition.groups) for cell in counted])
    table["test"] = "permutation, family-wise, early"
    draw_calibration(table, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "calibration_autoencoder.png",
        "calibration_power.png",
    ]


def test_rows_are_in_the_order_of_the_fullest_null():
    cells = {"a": ("first", "last"), "b": ("first", "between", "last")}
    table = pd.DataFrame([(test, null, "3:3") for null, tests in cells.items() for test in tests])
    assert ordered_tests(table.set_axis(["test", "null", "groups"], axis=1)) == ["first", "between", "last"]


def test_the_page_is_made_anew_around_its_text(tmp_path):
    first = next(iter(NULLS.values()))[0]
    table = _rates(first.name, 20, first.condition.groups).assign(test="permutation, early")
    page = tmp_path / "calibration.md"
    page.write_text("Before.\n" + "".join(f"<!-- {name} -->old<!-- end of {name} -->\n" for name in PARTS) + "After.\n")
    update_page(table, tmp_path)
    text = page.read_text()
    assert text.startswith("Before.")
    assert text.endswith("After.\n")
    assert "old" not in text
    assert "**100 studies** are counted here" in text
    assert "Of the 1 exact 99 % intervals of tests that are offered 0 cover 0.05" in text
    assert f"permutation, early ({first.name}, {first.condition.groups}): 0.200" in text
    assert "autoencoder, effect 8, 24:72" in text  # planned and not counted
    assert "| *studies* | *100* |" in text
    assert (tmp_path / "images" / "calibration_autoencoder.png").exists()
    update_page(table, tmp_path)
    assert page.read_text() == text


def test_a_page_without_a_place_for_a_part_is_refused(tmp_path):
    with pytest.raises(AutoSpecError, match="there is no calibration.md"):
        update_page(_rates("a", 5), tmp_path)
    (tmp_path / "calibration.md").write_text("no place")
    with pytest.raises(AutoSpecError, match="<!-- counts --> and <!-- end of counts --> must each stand there once"):
        update_page(_rates("a", 5), tmp_path)
