"""How alike groups are, and covariates taken out of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autospec.cohorts.exclusions import Account
from autospec.errors import AutoSpecError
from autospec.experiments.datasets.balance import note_balance, standardised_difference
from autospec.experiments.datasets.cohort import build_cohort, build_dataset, check_cohort
from autospec.experiments.datasets.residuals import residualize

Make = Callable[..., Any]


def subjects(**columns: list[Any]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    labels = {"diagnosis": ["SZ", "HC"] * (n // 2), "sex": ["M"] * (n // 2) + ["F"] * (n // 2)}
    return pd.DataFrame({"id": [f"s{i}" for i in range(n)], "row": range(n), **labels, **columns})


def test_standardised_difference_is_austins() -> None:
    one, other = np.array([1.0, 2, 3]), np.array([3.0, 4, 8])
    # means 2 and 5, variances 1 and 7
    assert standardised_difference(one, other) == pytest.approx(-1.5)
    assert standardised_difference(one, one) == 0
    assert np.isnan(standardised_difference(one[:1], other))
    assert standardised_difference(np.array([1.0, np.nan, 3]), other) == pytest.approx(-3 / np.sqrt(4.5))


def test_a_warning_names_covariate_groups_and_size() -> None:
    account = Account()
    table = subjects(age=[50.0, 20, 52, 22, 54, 24, 56, 26])
    members = {name: (table["diagnosis"] == name).to_numpy() for name in ("SZ", "HC")}
    note_balance(table, members, ["diagnosis"], account)
    assert account.lines == ["age: SZ 53 ± 2.582, HC 23 ± 2.582", "sex: SZ F 2 / M 2, HC F 2 / M 2"]
    assert account.warnings == [
        "age is not balanced: standardised difference of SZ and HC +11.62, more than 0.25 apart"
    ]


def test_every_difference_is_handed_over_and_kept_as_a_record() -> None:
    table = subjects(age=[50.0, 20, 52, 22, 54, 24, 56, 26], motion=[0.1, np.nan] * 4)
    members = {name: (table["diagnosis"] == name).to_numpy() for name in ("SZ", "HC")}
    age, motion, sex = note_balance(table, members, ["diagnosis"], Account())
    assert (age.covariate, age.one, age.other, age.large) == ("age", "SZ", "HC", True)
    assert age.standardised == pytest.approx(30 / np.std([50, 52, 54, 56], ddof=1))
    assert motion.record() == {
        "covariate": "motion", "one": "SZ", "other": "HC", "standardised": None, "large": False,
    }  # fmt: skip
    assert (sex.covariate, sex.standardised, sex.large) == ("sex F", 0, False)


def test_groups_without_overlap_are_far_apart_though_no_number_says_so() -> None:
    table = subjects(age=[50.0, 20, 50, 20])
    members = {name: (table["diagnosis"] == name).to_numpy() for name in ("SZ", "HC")}
    account = Account()
    first = note_balance(table, members, ["diagnosis"], account)[0]
    assert first.record()["standardised"] is None
    assert first.record()["large"]
    assert account.warnings[0].startswith("age is not balanced: standardised difference of SZ and HC +inf")


def test_the_limit_is_a_quarter_of_a_standard_deviation() -> None:
    spread = np.array([-1.0, 1, -1, 1]) / np.std([-1, 1, -1, 1], ddof=1)
    for difference, warned in ((0.24, False), (0.26, True)):
        account = Account()
        ages = np.empty(8)
        ages[0::2], ages[1::2] = 40 + difference + spread, 40 + spread
        table = subjects(age=list(ages))
        members = {name: (table["diagnosis"] == name).to_numpy() for name in ("SZ", "HC")}
        note_balance(table, members, ["diagnosis"], account)
        assert bool(account.warnings) == warned


def test_site_is_compared_label_by_label_and_grouping_columns_are_not(config: Make) -> None:
    account = Account()
    table = subjects(site=["A", "B", "A", "B", "A", "C", "A", "C"])
    build_cohort(table, config("freesurfer", "dataset.group_by=[diagnosis,sex]"), account)
    assert any(line.startswith("site: HC/men B 2, HC/women C 2, SZ/men A 2") for line in account.lines)
    assert not any(line.startswith("sex") for line in account.lines)
    # neighbours alone: men with women of the same diagnosis, SZ with HC of the same sex
    assert {warning.split(" of ", 1)[1].split(" ")[0] for warning in account.warnings} <= {
        "HC/men",
        "HC/women",
        "SZ/men",
    }
    assert not any("HC/men and SZ/women" in warning for warning in account.warnings)


def test_a_missing_covariate_is_counted() -> None:
    account = Account()
    table = subjects(motion=[0.1, 0.2, np.nan, 0.2])
    note_balance(table, {"SZ": np.array([True, False] * 2), "HC": np.array([False, True] * 2)}, ["diagnosis"], account)
    assert account.lines[0] == "motion: SZ 0.1 (1 missing), HC 0.2 ± 0"


def test_who_moved_too_much_or_unknown_is_left_out_by_name(config: Make) -> None:
    account = Account()
    table = subjects(motion=[0.1, 0.9, np.nan, 0.2])
    assert build_cohort(table, config("freesurfer", "dataset.motion_cut=0.5"), account).subjects == ("s0", "s3")
    assert account.dropped == {
        "s1": "motion 0.9 is above dataset.motion_cut=0.5",
        "s2": "motion is missing, and there is dataset.motion_cut=0.5",
    }
    with pytest.raises(AutoSpecError, match="dataset.motion_cut=0.01: every subject moved more"):
        build_cohort(table, config("freesurfer", "dataset.motion_cut=0.01"), Account())
    with pytest.raises(AutoSpecError, match="the cohort has no column 'motion'"):
        build_cohort(table.drop(columns="motion"), config("freesurfer", "dataset.motion_cut=0.5"), Account())


def test_residuals_are_fitted_on_training_people_only() -> None:
    rng = np.random.default_rng(0)
    age = rng.normal(size=(40, 1))
    data = 3 * age + rng.normal(size=(40, 5)) + 10
    training = np.arange(40) < 30
    found, fitted = residualize(data, age, training)
    design = np.column_stack([np.ones(30), age[:30, 0]])
    slope = np.linalg.lstsq(design, data[:30], rcond=None)[0][1]
    assert np.allclose(found, data - (age - age[:30].mean()) * slope)
    assert np.allclose(fitted["residualize_slope"], slope)
    changed = data.copy()
    changed[30:] += 100
    assert np.allclose(residualize(changed, age, training)[1]["residualize_slope"], slope)


def test_residualizing_removes_labels_and_numbers(config: Make) -> None:
    rng = np.random.default_rng(1)
    table = subjects(age=list(rng.normal(40, 10, 60)), site=["A", "B", "C"] * 20)
    shift = table["site"].map({"A": 0.0, "B": 5.0, "C": -3.0}).to_numpy()
    data = np.column_stack([shift + 0.2 * table["age"], rng.normal(size=60)]) + rng.normal(size=(60, 2))
    settings = config("freesurfer", "dataset.residualize=[age,sex,site]", "dataset.scaling=none")
    account = Account()
    found = build_dataset(build_cohort(table, settings, account), data, settings, account, "x", False)
    assert abs(np.corrcoef(found.inputs[:, 0], table["age"])[0, 1]) < 1e-5
    assert np.ptp([found.inputs[table["site"] == site, 0].mean() for site in "ABC"]) < 1e-4
    assert {"residualize_centre", "residualize_slope"} <= set(found.scaling)


def test_a_missing_covariate_leaves_the_person_out_by_name(config: Make) -> None:
    account = Account()
    table = subjects(age=[30.0, np.nan, 40, 50], site=["A", "B", "", "A"])
    found = build_cohort(table, config("freesurfer", "dataset.residualize=[age,site]"), account)
    assert found.subjects == ("s0", "s3")
    assert account.dropped["s1"] == "age is missing, and dataset.residualize needs it"
    assert account.dropped["s2"] == "site is missing, and dataset.residualize needs it"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.residualize=[diagnosis]", "diagnosis is dataset.target"),
        ("dataset.residualize=[age,age]", "must name different columns"),
        ("dataset.motion_cut=0", "dataset.motion_cut=0.0: must be above 0, or null"),
    ],
)
def test_mistakes_end_in_one_line(config: Make, override: str, message: str) -> None:
    with pytest.raises(AutoSpecError, match=message):
        check_cohort(config("freesurfer", override))


def test_too_few_people_for_a_fit_are_an_error() -> None:
    with pytest.raises(AutoSpecError, match="2 training subjects are too few for 1 covariates"):
        residualize(np.ones((2, 3)), np.ones((2, 1)), np.ones(2, dtype=bool))


def test_a_covariate_that_is_the_same_in_everybody_is_named(config: Make) -> None:
    account = Account()
    build_cohort(subjects(site=["A"] * 4), config("freesurfer", "dataset.residualize=[site,sex]"), account)
    assert account.warnings == ["dataset.residualize: site is the same in all training subjects; nothing is taken out"]


def test_a_feature_that_covariates_tell_altogether_is_named() -> None:
    rng = np.random.default_rng(2)
    size = rng.normal(1500, 100, size=(20, 1))
    data = np.column_stack([rng.normal(size=20), 2 * size[:, 0] + 3, np.full(20, 4.0)])
    training = np.ones(20, dtype=bool)
    with pytest.raises(AutoSpecError, match=r"dataset.residualize: the covariates tell all of ICV; leave it out of"):
        residualize(data, size, training, ["Hippocampus", "ICV", "constant"])
    with pytest.raises(AutoSpecError, match="the covariates tell all of 1 of 3 values"):
        residualize(data, size, training)
