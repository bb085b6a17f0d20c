"""Classes, groups, margins and the training subjects of a cohort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autospec.cohorts.exclusions import Account
from autospec.errors import AutoSpecError
from autospec.experiments.datasets.cohort import Cohort, build_cohort, build_dataset, check_cohort

Make = Callable[..., Any]
CROSSED = "dataset.group_by=[diagnosis,sex]"


def table(*rows: tuple[str, str]) -> pd.DataFrame:
    """Subjects s0, s1 … with (diagnosis, sex)."""
    diagnosis, sex = zip(*rows, strict=True)
    ids = [f"s{number}" for number in range(len(rows))]
    return pd.DataFrame({"id": ids, "row": range(len(rows)), "diagnosis": diagnosis, "sex": sex})


FOUR = table(("SZ", "M"), ("HC", "Female"), ("Patient", "women"), ("Control", "men"))


def members(found: Cohort, group: str) -> set[str]:
    return {who for who, code in zip(found.subjects, found.group, strict=True) if found.groups[code] == group}


def test_two_columns_are_crossed_and_have_margins(config: Make) -> None:
    found = build_cohort(FOUR, config("freesurfer", CROSSED), Account())
    assert found.groups == ("HC/men", "HC/women", "SZ/men", "SZ/women")
    assert members(found, "SZ/men") == {"s0"}
    assert members(found, "HC/men") == {"s3"}
    assert found.margins == {
        "HC": ("HC/men", "HC/women"),
        "SZ": ("SZ/men", "SZ/women"),
        "men": ("HC/men", "SZ/men"),
        "women": ("HC/women", "SZ/women"),
    }
    assert found.classes == ("HC", "SZ")
    assert found.target.tolist() == [1, 0, 1, 0]


def test_one_column_has_no_margins_and_the_target_may_be_another(config: Make) -> None:
    found = build_cohort(FOUR, config("freesurfer", "dataset.target=sex"), Account())
    assert (found.groups, found.margins, found.classes) == (("HC", "SZ"), {}, ("men", "women"))
    assert found.target.tolist() == [0, 1, 1, 0]


def test_a_cell_without_people_is_no_group(config: Make) -> None:
    found = build_cohort(table(("SZ", "M"), ("HC", "M"), ("HC", "F")), config("freesurfer", CROSSED), Account())
    assert found.groups == ("HC/men", "HC/women", "SZ/men")
    assert found.margins["SZ"] == ("SZ/men",)


def test_a_column_without_a_mapping_names_itself(config: Make) -> None:
    subjects = FOUR.assign(site=["B", "A", "A", "B"])
    found = build_cohort(subjects, config("freesurfer", "dataset.group_by=[diagnosis,site]"), Account())
    assert found.groups == ("HC/A", "HC/B", "SZ/A", "SZ/B")


def test_people_without_a_usable_label_are_named(config: Make) -> None:
    account = Account()
    subjects = table(("SZ", "M"), ("Disenrolled", "M"), ("", "F"), ("HC", "n/a"), ("HC", "F"))
    found = build_cohort(subjects, config("freesurfer", CROSSED), account)
    assert found.subjects == ("s0", "s4")
    assert found.row.tolist() == [0, 4]
    assert account.dropped == {
        "s1": "diagnosis is 'Disenrolled', which dataset.labels.diagnosis does not name",
        "s2": "diagnosis is missing",
        "s3": "sex is missing",
    }
    assert account.lines == ["2 subjects; groups: HC/women 1, SZ/men 1"]


def test_a_label_that_is_not_used_may_be_missing(config: Make) -> None:
    assert build_cohort(table(("SZ", ""), ("HC", "F")), config("freesurfer"), Account()).subjects == ("s0", "s1")


def test_values_may_be_mapped_to_other_names(config: Make) -> None:
    subjects = table(("1", "M"), ("2", "F"))
    overrides = ("dataset.labels.diagnosis.SZ=[1]", "dataset.labels.diagnosis.HC=[2]")
    assert build_cohort(subjects, config("freesurfer", *overrides), Account()).target.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset.labels.diagnosis.HC=[Patient]"], "dataset.labels.diagnosis: 'Patient' stands for both"),
        (["dataset.group_by=[sex,sex]"], r"dataset.group_by=\['sex', 'sex'\]: must name different columns"),
        (["dataset.group_by=[]"], r"dataset.group_by=\[\]: must name"),
        (
            ["dataset.scaling=minmax"],
            "dataset.scaling=minmax: unknown; allowed here are none, feature, person, global",
        ),
    ],
)
def test_mistakes_are_found_before_anything_is_loaded(config: Make, overrides: list[str], message: str) -> None:
    with pytest.raises(AutoSpecError, match=message):
        check_cohort(config("freesurfer", *overrides))


@pytest.mark.parametrize("label", ["all", "a/b", "SZ"])
def test_a_label_that_cannot_name_a_group_is_an_error(config: Make, label: str) -> None:
    subjects = FOUR.assign(site=[label, "A", "A", "A"])
    with pytest.raises(AutoSpecError, match=f"the label '{label}' cannot name a group"):
        build_cohort(subjects, config("freesurfer", "dataset.group_by=[diagnosis,site]"), Account())


def test_a_column_that_the_cohort_lacks_and_a_cohort_of_nobody_are_errors(config: Make) -> None:
    with pytest.raises(AutoSpecError, match="the cohort has no column 'site'; it has id, row, diagnosis, sex"):
        build_cohort(FOUR, config("freesurfer", "dataset.group_by=[site]"), Account())
    message = r"no subject has a usable value of diagnosis \(diagnosis is '', 'BP', 'case'\); see dataset.labels"
    with pytest.raises(AutoSpecError, match=message):
        build_cohort(table(("BP", "M"), ("case", "F"), ("BP", "F"), ("", "F")), config("freesurfer"), Account())


def test_people_are_held_out_within_target_and_sex(config: Make) -> None:
    subjects = table(*[("SZ", "M")] * 40, *[("SZ", "F")] * 20, *[("HC", "M")] * 20, *[("HC", "F")] * 10)
    found = build_cohort(subjects, config("freesurfer", CROSSED, "dataset.holdout=0.2"), Account())
    left = [int((~found.training & (found.group == code)).sum()) for code in range(4)]
    assert dict(zip(found.groups, left, strict=True)) == {"HC/men": 4, "HC/women": 2, "SZ/men": 8, "SZ/women": 4}
    again = build_cohort(subjects, config("freesurfer", CROSSED, "dataset.holdout=0.2"), Account())
    other = build_cohort(
        subjects, config("freesurfer", CROSSED, "dataset.holdout=0.2", "dataset.holdout_seed=1"), Account()
    )
    assert np.array_equal(found.training, again.training)
    assert not np.array_equal(found.training, other.training)


def test_group_sizes_count_training_people(config: Make) -> None:
    subjects = table(*[("SZ", "M")] * 40, *[("SZ", "F")] * 20, *[("HC", "M")] * 20, *[("HC", "F")] * 10)
    settings = config("freesurfer", CROSSED, "dataset.holdout=0.2")
    account = Account()
    data = build_dataset(
        build_cohort(subjects, settings, account),
        np.random.default_rng(0).normal(size=(90, 3)),
        settings,
        account,
        "x",
        False,
    )
    assert data.group_sizes() == [72, 16, 8, 32, 16, 24, 48, 48, 24]
    assert data.account == ("90 subjects; groups: HC/men 20, HC/women 10, SZ/men 40, SZ/women 20",)
    assert set(data.scaling) == {"mean", "sd"}
