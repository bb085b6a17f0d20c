"""Real tables of volumes: columns chosen by name, subjects joined, every gap named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.datasets.dataset import Dataset

Make = Callable[..., Any]

HEADER = ["Measure:volume", "Left-Hippocampus", "Left-Thalamus", "lh_G_cuneus_thickness", "Left-WM-hypointensities"]
ROWS = [
    ["sub-1", 4000, 7000, 2.1, 0],
    ["sub-2", 4100, 7300, 2.0, 0],
    ["sub-3", 3900, 7100, 1.9, 0],
    ["sub-4", 4300, 7200, 2.2, 0],
]
PEOPLE = [
    ["participant_id", "diagnosis", "sex"],
    ["sub-001", "SZ", "M"], ["sub-002", "HC", "F"], ["sub-003", "SZ", "F"], ["sub-004", "HC", "M"],
]  # fmt: skip


@pytest.fixture
def load(config: Make, write_table: Make) -> Callable[..., Dataset]:
    """A function (rows of the table, overrides …) → the data set of these rows and PEOPLE."""

    def make(
        rows: list[list[object]], *overrides: str, header: list[str] = HEADER, subjects: list[list[str]] = PEOPLE
    ) -> Dataset:
        table, participants = write_table("aseg.tsv", header, *rows), write_table("subjects.tsv", *subjects)
        paths = (f"dataset.table={table}", f"dataset.participants={participants}")
        return datasets.load(config("freesurfer", *paths, *overrides))

    return make


def test_a_table_is_joined_with_its_participants(load: Callable[..., Dataset]) -> None:
    data = load(ROWS, "dataset.scaling=none")
    assert data.subjects == ("sub-001", "sub-002", "sub-003", "sub-004")
    assert [data.classes[code] for code in data.target] == ["SZ", "HC", "SZ", "HC"]
    assert data.inputs.tolist() == [[row[2], row[1]] for row in ROWS]  # in the order of the named list
    assert not data.simulated
    assert data.source == "FreeSurfer table aseg.tsv"


def test_the_account_names_columns_that_are_renamed_lacking_unused_or_constant(load: Callable[..., Dataset]) -> None:
    lines = "\n".join(load(ROWS).account)
    assert "renamed columns: Left-Thalamus is Left-Thalamus-Proper" in lines
    assert "features=aseg: the table lacks Left-Lateral-Ventricle, " in lines
    assert "2 of 4 columns are not used: lh_G_cuneus_thickness, Left-WM-hypointensities" in lines
    assert "2 features: Left-Thalamus-Proper, Left-Hippocampus" in lines
    everything = "\n".join(load(ROWS, "dataset.features=all").account)
    assert "constant or empty columns are left out: Left-WM-hypointensities" in everything


def test_features_may_be_all_or_a_list(load: Callable[..., Dataset]) -> None:
    assert load(ROWS, "dataset.features=all").inputs.shape == (4, 3)
    chosen = load(ROWS, "dataset.features=[lh_G_cuneus_thickness]", "dataset.scaling=none")
    assert np.allclose(chosen.inputs[:, 0], [2.1, 2.0, 1.9, 2.2])


@pytest.mark.parametrize("gap", ["", "NaN", "-9999", "n/a"])
def test_a_missing_value_leaves_the_person_out_by_name(load: Callable[..., Dataset], gap: str) -> None:
    rows = [*ROWS[:3], ["sub-4", gap, 7200, 2.2, 0]]
    data = load(rows)
    assert data.subjects == ("sub-001", "sub-002", "sub-003")
    assert "left out: sub-004: no value of Left-Hippocampus" in data.account


def test_a_column_that_is_constant_once_people_are_left_out_is_named(load: Callable[..., Dataset]) -> None:
    """Only a subject who is dropped later had another value: without that subject the column says nothing."""
    rows = [[*row[:3], 2.0, 0] for row in ROWS]
    rows[3][3] = 2.5
    assert load(rows, "dataset.features=all").inputs.shape == (4, 3)
    subjects = [row if row[0] != "sub-004" else ["sub-004", "BP", "M"] for row in PEOPLE]
    data = load(rows, "dataset.features=all", subjects=subjects)
    assert data.inputs.shape == (3, 2)
    assert "columns that are constant in the 3 training subjects are left out: lh_G_cuneus_thickness" in data.account
    assert "left out: sub-004: diagnosis is 'BP', which dataset.labels.diagnosis does not name" in data.account
    assert "2 features: Left-Hippocampus, Left-Thalamus-Proper" in data.account
    with pytest.raises(AutoSpecError, match="every column is constant in the 3 training subjects"):
        load(rows, "dataset.features=[lh_G_cuneus_thickness]", subjects=subjects)


def test_a_column_that_is_empty_for_all_is_left_out_not_the_people(load: Callable[..., Dataset]) -> None:
    data = load([[row[0], -9999, *row[2:]] for row in ROWS])
    assert data.inputs.shape == (4, 1)
    assert "constant or empty columns are left out: Left-Hippocampus" in data.account


def test_subjects_without_phenotype_or_data_and_doubled_ones_are_named(load: Callable[..., Dataset]) -> None:
    data = load([*ROWS[1:], ["sub-2", 1, 2, 3, 0], ["sub-9", 4000, 7000, 2.0, 0]])
    assert data.subjects == ("sub-003", "sub-004")
    assert "left out: sub-2: the id occurs 2 times in aseg.tsv" in data.account
    assert "left out: sub-9: is in aseg.tsv but has no row in the phenotype table" in data.account
    assert "left out: sub-001: has no data in aseg.tsv" in data.account


def test_the_account_is_logged(load: Callable[..., Dataset], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="autospec.experiments.datasets.freesurfer.dataset"):
        data = load(ROWS)
    assert tuple(record.getMessage() for record in caplog.records) == data.account


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.features=[Left-Hipocampus]", "no column 'Left-Hipocampus'; did you mean 'Left-Hippocampus'?"),
        ("dataset.features=[Left-Hippocampus,Left-Hippocampus]", "'Left-Hippocampus' is listed 2 times"),
        ("dataset.features=thickness", "dataset.features=thickness: unknown; allowed are aseg, aseg_table, aparc"),
        ("dataset.features=[]", r"dataset.features=\[\]: must be aseg, aseg_table, aparc.*, all, or a list"),
        ("dataset.features=[Left-WM-hypointensities]", "every chosen column is constant or empty"),
        ("dataset.path=x", "dataset.path=x: freesurfer reads two files, dataset.table and dataset.participants"),
        ("dataset.table=null", "dataset.table: is needed where dataset.participants is given"),
        ("dataset.participants=null", "dataset.participants: is needed where dataset.table is given"),
        ("dataset.table=nowhere.tsv", "nowhere.tsv: there is no such file"),
    ],
)
def test_mistakes_end_in_one_line(load: Callable[..., Dataset], override: str, message: str) -> None:
    with pytest.raises(AutoSpecError, match=message) as error:
        load(ROWS, override)
    assert "\n" not in str(error.value)


def test_text_in_a_volume_names_file_column_and_subject(load: Callable[..., Dataset]) -> None:
    with pytest.raises(AutoSpecError, match=r"aseg.tsv: column 'Left-Hippocampus' of subject sub-4 is 'big', which is"):
        load([*ROWS[:3], ["sub-4", "big", 7200, 2.2, 0]])


def test_a_table_of_something_else_is_an_error(load: Callable[..., Dataset]) -> None:
    with pytest.raises(AutoSpecError, match=r"dataset.features=aseg: the table has none of them, but lh_thickness"):
        load([["sub-1", 2.5]], header=["lh.aparc.thickness", "lh_thickness"])


def test_nobody_with_complete_data_is_an_error(load: Callable[..., Dataset]) -> None:
    rows = [[*row[:1], *(("", 7000 + i) if i % 2 else (4000 + i, "")), 2.0, 0] for i, row in enumerate(ROWS)]
    with pytest.raises(AutoSpecError, match="no subject has a value in each of"):
        load(rows)


def test_fingerprint_follows_the_content(config: Make, write_table: Make) -> None:
    subjects = write_table("subjects.tsv", *PEOPLE)
    seen = set()
    for value in (4000, 4001):
        table = write_table(f"aseg{value}.tsv", HEADER, ["sub-1", value, 1, 1, 0])
        seen.add(
            datasets.fingerprint(config("freesurfer", f"dataset.table={table}", f"dataset.participants={subjects}"))
        )
    assert len(seen) == 2
    missing = Path(subjects).with_name("none.tsv")
    with pytest.raises(AutoSpecError, match=r"none.tsv: there is no such file"):
        datasets.fingerprint(config("freesurfer", f"dataset.table={missing}", f"dataset.participants={subjects}"))
