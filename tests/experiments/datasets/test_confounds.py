"""Confounds: covariates taken out, sites harmonised, groups matched; and what is recorded of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autospec.cohorts.exclusions import Account
from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.datasets.cobre_timeseries import check
from autospec.experiments.datasets.cohort import build_cohort, build_dataset, check_cohort
from autospec.experiments.datasets.harmonization import harmonize
from autospec.experiments.datasets.residuals import residualize

Make = Callable[..., Any]
RNG = np.random.default_rng


def subjects(n: int = 40, **columns: Any) -> pd.DataFrame:
    """``n`` subjects, SZ and HC in turn, men first."""
    labels = {"diagnosis": ["SZ", "HC"] * (n // 2), "sex": ["M"] * (n // 2) + ["F"] * (n // 2)}
    return pd.DataFrame({"id": [f"s{i}" for i in range(n)], "row": range(n), **labels, **columns})


def made(config: Make, table: pd.DataFrame, inputs: np.ndarray, *overrides: str) -> Any:
    """The data set of these subjects and their data."""
    settings, account = config("freesurfer", "dataset.scaling=none", *overrides), Account()
    cohort = build_cohort(table, settings, account)
    return build_dataset(cohort, inputs[cohort.row], settings, account, "a table", False)


def test_a_subject_alone_with_a_label_is_not_made_the_mean(config: Make) -> None:
    table = subjects(site=["A", "B"] * 19 + ["A", "C"])
    with pytest.raises(AutoSpecError, match=r"dataset.residualize: s39 alone has a label .* exactly the mean of all"):
        made(config, table, RNG(0).normal(size=(40, 3)), "dataset.residualize=[site]")


def test_a_numeric_covariate_of_any_name_is_one_column(config: Make) -> None:
    education = RNG(1).integers(8, 20, 40)
    table = subjects(education=[str(years) for years in education])
    inputs = RNG(2).normal(size=(40, 3)) + education[:, None]
    data = made(config, table, inputs, "dataset.residualize=[education]")
    assert data.scaling["residualize_slope"].shape == (1, 3)
    assert np.abs(np.corrcoef(education, data.inputs[:, 0])[0, 1]) < 1e-6
    assert any("education as a number" in line for line in data.account)
    coded = made(config, table.assign(site=["1", "2", "3", "4"] * 10), inputs, "dataset.residualize=[site]")
    assert coded.scaling["residualize_slope"].shape == (3, 3)
    assert any("site as 4 labels" in line for line in coded.account)


def test_residuals_of_equal_leverage_are_those_of_the_hat_matrix() -> None:
    age, training = RNG(0).normal(size=(30, 2)), np.arange(30) < 25
    data = RNG(1).normal(size=(30, 4)) + age[:, :1]
    plain, _ = residualize(data, age, training)
    equal, _ = residualize(data, age, training, equal_leverage=True)
    design = np.column_stack([np.ones(25), age[:25]])
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    mean = data[:25].mean(axis=0)
    assert np.allclose(equal[:25] - mean, (plain[:25] - mean) / np.sqrt(1 - np.diag(hat))[:, None])
    assert np.array_equal(equal[25:], plain[25:])


def sites(n: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    """Two sites that differ in location and scale, and a diagnosis that acts in both."""
    rng = RNG(3)
    site = np.array(["A", "B", "B"] * (n // 3))
    table = subjects(n, site=list(site), age=list(rng.normal(40, 10, n)))
    data = rng.normal(size=(n, 30)) + np.where(table["diagnosis"] == "SZ", 1.0, 0.0)[:, None]
    return table, np.where((site == "B")[:, None], 2 * data + 5, data)


def test_harmonised_sites_are_alike_and_the_groups_stay_apart(config: Make) -> None:
    pytest.importorskip("combatlearn")
    table, inputs = sites()
    data = made(config, table, inputs, "dataset.harmonize=[site]")
    patients, at_b = data.target == 1, (table["site"] == "B").to_numpy()
    assert abs(inputs[at_b].mean() - inputs[~at_b].mean()) > 5
    assert abs(data.inputs[at_b].mean() - data.inputs[~at_b].mean()) < 0.2
    assert data.inputs[patients].mean() - data.inputs[~patients].mean() > 0.8
    assert any(line.startswith("harmonised by ComBat over site (A 20, B 40); kept: diagnosis") for line in data.account)


def test_harmonised_values_are_the_library_s_own(config: Make) -> None:
    ComBat = pytest.importorskip("combatlearn").ComBat
    table, inputs = sites()
    settings = config("freesurfer", "dataset.harmonize=[site]")
    training = np.ones(len(inputs), dtype=bool)
    found, _ = harmonize(inputs, table, training, settings, Account())
    model = ComBat(
        table["site"],
        discrete_covariates=table[["diagnosis", "sex"]],
        continuous_covariates=table[["age"]],
        method="fortin",
    )
    assert np.allclose(found, model.fit(pd.DataFrame(inputs)).transform(pd.DataFrame(inputs)), atol=1e-10)


def test_nothing_of_held_out_subjects_flows_into_the_fit(config: Make) -> None:
    """Other data, ages and diagnoses of held-out subjects change nothing of anybody else."""
    pytest.importorskip("combatlearn")
    table, inputs = sites()
    training = np.arange(60) < 45
    settings = config("freesurfer", "dataset.harmonize=[site]", "dataset.holdout=0.2")
    before, _ = harmonize(inputs, table, training, settings, Account())
    changed = inputs.copy()
    changed[~training] = 1000 * RNG(4).normal(size=changed[~training].shape)
    ages = np.where(training, table["age"], 7.0)
    labels = np.where(training, table["diagnosis"], "HC")
    other = table.assign(age=ages, diagnosis=labels)
    after, _ = harmonize(changed, other, training, settings, Account())
    assert np.array_equal(before[training], after[training])
    swapped = table["diagnosis"].map({"SZ": "HC", "HC": "SZ"}).where(~pd.Series(training), table["diagnosis"])
    relabelled, _ = harmonize(inputs, table.assign(diagnosis=swapped), training, settings, Account())
    assert np.array_equal(before, relabelled), "what is to be learned of a held-out subject shaped its data"
    one = inputs.copy()
    one[50] += 100
    moved, _ = harmonize(one, table, training, settings, Account())
    assert np.array_equal(np.delete(before, 50, axis=0), np.delete(moved, 50, axis=0))


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (["A"] * 39 + ["B"], r"site B has 1 training subject\(s\) \(s39\); ComBat needs 2 or more"),
        (["A"] * 40, r"all training subjects are of one site \(A\)"),
        (["A", "B"] * 20, "every site has one diagnosis alone, so that taking out sites takes out diagnosis"),
    ],
)
def test_sites_that_cannot_be_harmonised_are_named(config: Make, site: list[str], message: str) -> None:
    with pytest.raises(AutoSpecError, match=message):
        made(config, subjects(site=site), RNG(0).normal(size=(40, 3)), "dataset.harmonize=[site]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.harmonize=[diagnosis]", "diagnosis is what is compared or learned"),
        ("dataset.harmonize=[age]", "age is a number, not a site"),
        ("dataset.harmonize=[site,site]", "must name different columns"),
        ("dataset.match=[age,age]", "must name different columns"),
        ("dataset.match=[diagnosis]", "diagnosis is dataset.target"),
        ("dataset.group_by=[diagnosis,session]", "groups by session need dataset.session=all"),
    ],
)
def test_mistakes_end_in_one_line(config: Make, override: str, message: str) -> None:
    with pytest.raises(AutoSpecError, match=message):
        check_cohort(config("freesurfer", override))


def test_time_courses_are_not_harmonised(config: Make) -> None:
    with pytest.raises(AutoSpecError, match="time-courses of different subjects share no time axis"):
        check(config("cobre_timeseries", "dataset.harmonize=[site]"))


def test_matched_groups_are_alike_and_who_is_left_out_is_named(config: Make) -> None:
    rng = RNG(5)
    patients = np.array([True, False] * 30)
    age = np.where(patients, rng.normal(45, 8, 60), rng.normal(37, 8, 60))
    motion = np.where(patients, rng.normal(0.4, 0.1, 60), rng.normal(0.3, 0.1, 60))
    table = subjects(60, age=list(age), motion=list(motion))
    data = made(config, table, rng.normal(size=(60, 3)), "dataset.match=[age,sex,motion]")
    sizes = np.bincount(data.target)
    assert sizes[0] == sizes[1] >= 10
    assert {one["covariate"] for one in data.balance} == {"age", "motion", "sex men"}
    assert all(abs(float(one["standardised"] or 0)) < 0.25 for one in data.balance)
    left_out = [line for line in data.account if "has no partner by dataset.match" in line]
    assert len(left_out) == 60 - len(data.subjects)
    assert data.facts["matched_by"] == ["age", "sex", "motion"]
    with pytest.raises(AutoSpecError, match="no two subjects of different diagnosis are near"):
        made(config, table.assign(age=np.where(patients, 20.0, 80.0)), rng.normal(size=(60, 3)), "dataset.match=[age]")


def test_facts_say_what_a_figure_must(config: Make) -> None:
    age = [30.0 + 20 * (i % 2) + i / 10 for i in range(40)]
    table = subjects(age=age, motion=[0.1 + i / 1000 for i in range(40)])
    data = made(config, table, RNG(0).normal(size=(40, 3)), "dataset.motion_cut=0.5")
    assert json.loads(json.dumps(data.facts)) == data.facts
    assert data.facts["motion_cut"] == 0.5
    assert data.facts["adjusted_for"] == []
    worst = data.facts["imbalances"][0]
    assert (worst["covariate"], worst["adjusted"]) == ("age", False)
    adjusted = made(config, table, RNG(0).normal(size=(40, 3)), "dataset.residualize=[age]")
    assert adjusted.facts["adjusted_for"] == ["age"]
    assert adjusted.facts["imbalances"][0]["adjusted"]
    assert datasets.load(config("freesurfer")).facts["study"] is None
