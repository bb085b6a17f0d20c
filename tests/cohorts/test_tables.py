"""Tables of subjects as files hold them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autospec.cohorts.tables import is_missing, parse_number, parse_numbers, plain_id, read_table
from autospec.errors import AutoSpecError


@pytest.mark.parametrize("text", ["id\tage\n007\t 30 \n", "id,age\n007, 30\n", "\ufeffid,age\r\n007,30\r\n"])
def test_cells_are_stripped_text_whatever_separates_them(tmp_path: Path, text: str) -> None:
    file = tmp_path / "subjects.txt"
    file.write_bytes(text.encode())
    assert read_table(file).to_dict("records") == [{"id": "007", "age": "30"}]


def test_a_gzipped_table_is_read(tmp_path: Path) -> None:
    file = tmp_path / "subjects.tsv.gz"
    file.write_bytes(gzip.compress(b"id\tCurrent Age\n1\t30\n"))
    assert list(read_table(file)["Current Age"]) == ["30"]


def test_a_short_row_has_missing_values(tmp_path: Path) -> None:
    file = tmp_path / "subjects.tsv"
    file.write_text("id\tage\n1\n")
    assert is_missing(read_table(file)["age"][0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a table"),
        (b"id,age\n1,2,3\n", "cannot be read as a table"),
        (b"id,age\n", "has no row below its header"),
        (b"id,age,age\n1,2,3\n", "column 'age' occurs 2 times"),
        (b"\xff\xfe\x00,\n", "cannot be read as a table"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "subjects.csv"
    file.write_bytes(content)
    with pytest.raises(AutoSpecError, match=message) as error:
        read_table(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_gzip_and_a_missing_file_are_named(tmp_path: Path) -> None:
    file = tmp_path / "subjects.tsv.gz"
    with pytest.raises(AutoSpecError, match="there is no such file"):
        read_table(file)
    file.write_bytes(gzip.compress(b"id\tage\n1\t30\n" * 100)[:-20])
    with pytest.raises(AutoSpecError, match="is truncated or damaged"):
        read_table(file)


@pytest.mark.parametrize("text", ["", "NA", "n/a", "NaN", "-9999", "-9999.0", "-9999.00", "inf"])
def test_missing_values_are_nan(text: str) -> None:
    value = parse_number(text)
    assert value is not None
    assert np.isnan(value)


def test_numbers_and_text_are_told_apart() -> None:
    assert parse_number("1.5e3") == 1500
    assert parse_number("Disenrolled") is None


def test_text_among_numbers_names_file_column_and_subject() -> None:
    table = pd.DataFrame({"Left-Hippocampus": ["4000", "four thousand"]})
    with pytest.raises(AutoSpecError, match=r"aseg.tsv: column 'Left-Hippocampus' of subject sub-2 is 'four thousand'"):
        parse_numbers(table, ["sub-1", "sub-2"], Path("aseg.tsv"))


@pytest.mark.parametrize(
    ("text", "plain"), [("sub-007", "7"), ("SUB_007", "7"), ("0040001", "40001"), ("A00035", "A00035"), ("000", "000")]
)
def test_ids_lose_prefix_and_leading_zeros(text: str, plain: str) -> None:
    assert plain_id(text) == plain


@pytest.mark.parametrize("place", [12, 20, 40])
def test_a_table_that_is_damaged_within_is_named(tmp_path: Path, place: int) -> None:
    content = bytearray(gzip.compress(b"".join(b"%d\t%d\n" % (k, k * k) for k in range(500))))
    content[place : place + 8] = b"\xff" * 8
    (tmp_path / "subjects.tsv.gz").write_bytes(bytes(content))
    with pytest.raises(AutoSpecError, match=r"subjects.tsv.gz: is truncated or damaged"):
        read_table(tmp_path / "subjects.tsv.gz")


def test_lines_with_too_few_cells_are_named_and_a_table_that_is_cut_off_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "subjects.csv"
    file.write_text("id,sex,age\n1,M,30\n\n2,F\n3,M,32\n")
    assert read_table(file)["age"].tolist() == ["30", "", "32"]
    assert f"{file}: lines 4 have fewer cells than the header, 3; the others are missing" in caplog.text
    file.write_text("id,sex,age\n1,M,30\n2,F")
    with pytest.raises(AutoSpecError, match=r"subjects.csv: is cut off: its last line has 2 of 3 cells"):
        read_table(file)
    file.write_bytes(b"id,sex,age\n1,M,30\n\0\0\0\0\n")
    with pytest.raises(AutoSpecError, match=r"cannot be read as a table: byte 18 is zero"):
        read_table(file)
    file.with_suffix(".txt").write_text("id sex age\n1 M 30\n2 F 31")
    assert len(read_table(file.with_suffix(".txt"))) == 2


def test_a_header_that_is_cut_in_two_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "subjects.tsv"
    file.write_bytes(b"particip\rant_id\tsex\n1\tM\n")
    with pytest.raises(AutoSpecError, match="its first line is one cell, others have tabs"):
        read_table(file)
