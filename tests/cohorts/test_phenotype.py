"""Phenotype tables and their join with data: no subject is lost or mislabelled in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.joining import join_by_id
from autospec.cohorts.phenotype import keep_complete
from autospec.errors import AutoSpecError
from autospec.experiments.datasets.cohort import read_participants

Make = Callable[..., Any]


def subjects(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"id": list(ids), "diagnosis": [f"of {own}" for own in ids]})


def test_columns_take_our_names(config: Make, write_table: Make) -> None:
    file = write_table(
        "pheno.tsv", ["", "Current Age", "Gender", "Subject Type"], ["0040000", 20, "Male", "Patient"]
    )  # fmt: skip
    mapping = ('dataset.columns.id=""', "dataset.columns.age='Current Age'", "dataset.columns.sex=Gender")
    account = Account()
    table = read_participants(file, config("freesurfer", *mapping, "dataset.columns.diagnosis='Subject Type'"), account)
    assert table.to_dict("records") == [{"id": "0040000", "age": 20.0, "sex": "Male", "diagnosis": "Patient"}]
    assert account.lines == ["pheno.tsv: 1 rows"]


def test_an_age_that_is_text_is_missing_and_said(config: Make, write_table: Make) -> None:
    file = write_table("p.tsv", ["participant_id", "diagnosis", "age"], ["s1", "SZ", "Disenrolled"], ["s2", "HC", 30])
    account = Account()
    table = read_participants(file, config("freesurfer"), account)
    assert np.isnan(table["age"][0])
    assert "age: no number for s1 (Disenrolled)" in account.lines


def test_a_column_that_is_needed_is_asked_for_by_name(config: Make, write_table: Make) -> None:
    file = write_table("p.tsv", ["participant_id", "group"], ["s1", "SZ"])
    with pytest.raises(AutoSpecError, match=r"dataset.columns.diagnosis: .*p.tsv has no column 'diagnosis'; it has"):
        read_participants(file, config("freesurfer"), Account())


def test_people_follow_the_order_of_the_data() -> None:
    table = join_by_id(subjects("sub-003", "sub-001", "sub-002"), ["1", "2", "3"], Account(), "aseg.tsv")
    assert list(table["id"]) == ["sub-001", "sub-002", "sub-003"]
    assert list(table["diagnosis"]) == ["of sub-001", "of sub-002", "of sub-003"]
    assert list(table["row"]) == [0, 1, 2]


def test_everybody_without_a_partner_is_named() -> None:
    account = Account()
    table = join_by_id(subjects("a", "b"), ["b", "c"], account, "aseg.tsv")
    assert list(table["id"]) == ["b"]
    assert account.dropped == {
        "a": "has no data in aseg.tsv",
        "c": "is in aseg.tsv but has no row in the phenotype table",
    }
    assert "aseg.tsv: 2 subjects, of whom 1 are joined with the phenotype table" in account.lines


def test_an_id_that_occurs_twice_is_left_out_on_either_side() -> None:
    account = Account()
    table = join_by_id(subjects("sub-01", "sub-1", "sub-2", "sub-3"), ["1", "2", "sub-02", "3"], account, "aseg.tsv")
    assert list(table["id"]) == ["sub-3"]
    assert account.dropped["sub-01"] == "the id occurs 2 times in the phenotype table"
    assert account.dropped["sub-02"] == "the id occurs 2 times in aseg.tsv"
    assert {"sub-01", "sub-1", "2", "sub-02"} <= set(account.dropped)


def test_tables_without_a_common_id_are_an_error() -> None:
    with pytest.raises(AutoSpecError, match=r"no id of aseg.tsv \(x\) is in the phenotype table \(a\)"):
        join_by_id(subjects("a"), ["x"], Account(), "aseg.tsv")


def test_people_with_nan_are_left_out_and_named() -> None:
    account = Account()
    table = subjects("a", "b").assign(row=[1, 0])
    kept = keep_complete(table, np.array([[[1.0]], [[np.nan]]]), account, "cohort.h5")
    assert list(kept["id"]) == ["b"]
    assert account.dropped == {"a": "has missing values (NaN or infinite) in cohort.h5"}
    with pytest.raises(AutoSpecError, match=r"no subject has complete data in cohort.h5"):
        keep_complete(table, np.full((2, 1), np.inf), account, "cohort.h5")


def test_the_account_is_logged_and_says_who_was_left_out(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    import logging

    account = Account()
    account.note("2 subjects")
    account.drop("a", "first reason")
    account.drop("a", "second reason")
    assert account.text() == ("2 subjects", "left out: a: first reason")
    with caplog.at_level(logging.INFO):
        account.log(logging.getLogger("autospec.test"))
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "2 subjects"),
        ("WARNING", "left out: a: first reason"),
    ]
    assert list_names("abcdefgh") == "a, b, c, d, e, f and 2 more"
