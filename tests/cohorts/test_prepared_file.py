"""Prepared cohorts as HDF5."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from autospec.cohorts.prepared_file import find_prepared, read_prepared, write_prepared
from autospec.errors import AutoSpecError
from autospec.store.checksums import DIGEST

PEOPLE = pd.DataFrame({"id": ["ä1", "b2"], "sex": [1, 2], "age": [30.0, np.nan], "site": ["x", ""]})
DATA = {"timecourses": np.arange(24.0).reshape(2, 4, 3), "affine": np.eye(4)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_prepared(tmp_path / "cohort.h5", PEOPLE, DATA, "a source", simulated=True)
    return tmp_path / "cohort.h5"


def test_what_is_written_is_read_back(file: Path) -> None:
    found = read_prepared(file, "timecourses")
    assert np.array_equal(found.data, DATA["timecourses"])
    assert found.affine is not None
    assert np.array_equal(found.affine, np.eye(4))
    assert (found.source, found.simulated) == ("a source", True)
    assert list(found.subjects["id"]) == ["ä1", "b2"]
    assert list(found.subjects["row"]) == [0, 1]


def test_labels_are_text_and_covariates_numbers(file: Path) -> None:
    subjects = read_prepared(file, "timecourses").subjects
    assert list(subjects["sex"]) == ["1", "2"]
    assert list(subjects["site"]) == ["x", ""]
    assert subjects["age"][0] == 30
    assert np.isnan(subjects["age"][1])


def test_ids_and_covariates_that_are_kept_as_numbers_lose_no_digit(tmp_path: Path) -> None:
    subjects = pd.DataFrame({"id": [40001234, 40001235], "head_size": [1483726.53, 0.1 + 0.2]})
    write_prepared(tmp_path / "cohort.h5", subjects, DATA, "a source")
    found = read_prepared(tmp_path / "cohort.h5", "timecourses").subjects
    assert list(found["id"]) == ["40001234", "40001235"]
    assert list(found["head_size"]) == [1483726.53, 0.1 + 0.2]


def test_h5py_alone_reads_it(file: Path) -> None:
    with h5py.File(file) as root:
        assert root.attrs["schema_version"] == 1
        assert root["people/id"].asstr()[:].tolist() == ["ä1", "b2"]
        assert h5py.check_string_dtype(root["people/id"].dtype) is not None


def test_no_half_written_file_is_left(tmp_path: Path) -> None:
    write_prepared(tmp_path / "cohort.h5", PEOPLE, DATA, "a source")
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.h5"]


def test_a_folder_stands_for_the_cohort_in_it(file: Path) -> None:
    assert find_prepared(file.parent) == find_prepared(file) == file
    with pytest.raises(AutoSpecError, match="there is no prepared cohort"):
        find_prepared(file.parent / "elsewhere")


def damaged(file: Path, what: str) -> None:
    if what == "truncated":
        file.write_bytes(file.read_bytes()[:700])
        return
    with h5py.File(file, "a") as root:
        if what == "edited":
            root.attrs["simulated"] = False
            return
        del root.attrs[DIGEST]  # as files of earlier versions, which say nothing of their structure
        if what == "version":
            root.attrs["schema_version"] = 2
        elif what == "no subject":
            del root["people"]
        elif what == "flat":
            del root["timecourses"]
            root["timecourses"] = np.zeros((2, 4))
        elif what == "few":
            del root["people/sex"]
            root["people/sex"] = np.zeros(1)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "is truncated or damaged and cannot be read"),
        ("edited", "its names, attributes or texts are not those that were written"),
        ("version", "has schema_version 2; this program reads 1"),
        ("no subject", "is truncated or damaged and cannot be read"),
        ("flat", "/timecourses has 2 dimensions, not 3"),
        ("few", "/people/sex has 1 entries along subject, where /people/age has 2"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(file: Path, what: str, message: str) -> None:
    damaged(file, what)
    with pytest.raises(AutoSpecError, match=message) as error:
        read_prepared(file, "timecourses")
    assert str(file) in str(error.value)


def test_data_that_was_not_prepared_is_named(file: Path) -> None:
    with pytest.raises(AutoSpecError, match="has no /map_maximum; it holds /affine, /people, /timecourses"):
        read_prepared(file, "map_maximum")
