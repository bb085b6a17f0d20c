"""Tables of subjects as files hold them: text first, numbers only where a number is meant."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import list_names
from autospec.errors import AutoSpecError
from autospec.foreign.files import unpacked

log = logging.getLogger(__name__)

MISSING_NUMBERS = frozenset({-9999.0, -999.0})
"""Numbers that programs write where a value is missing: FreeSurfer and COINS, SPSS and REDCap."""

MISSING_TEXTS = frozenset({"", ".", "na", "n/a", "#n/a", "#na", "nan", "null", "-9999", "-9999.0", "-999", "-999.0"})
"""What stands in a table where a value is missing, in lower case: "." as SAS and SPSS write it, "#N/A" as Excel."""

SEPARATORS = ("\t", ";", ",")
"""What may stand between cells, the rarest within a cell first; where none does, white space."""

MOST_COLUMNS, MOST_BYTES = 20_000, 2**30
"""No table of subjects has more."""

DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


def read_cells(path: Path) -> pd.DataFrame:
    """Every cell of a table, plain or gzipped, as stripped text; row 0 is the header.

    Cells are separated by tabs, semicolons, commas or white space, whichever the first line has. Where semicolons
    separate them, a decimal comma is a point (as R's ``write.csv2`` and Excel write numbers in many countries).

    Args:
        path: The file.

    Returns:
        Text, row 0 the header.

    Raises:
        AutoSpecError: It cannot be read.
    """
    content = unpacked(path, MOST_BYTES)
    try:
        separator = _separator(content, path)
        _check_rows(content, separator, path)
        content.seek(0)
        cells = pd.read_csv(
            content,
            sep=separator,
            header=None,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            engine="python" if separator == r"\s+" else "c",
        )
    except AutoSpecError:
        raise
    except (ValueError, OverflowError, MemoryError, csv.Error) as error:
        raise AutoSpecError(f"{path}: cannot be read as a table: {' '.join(str(error).split())}") from error
    cells = cells.fillna("").apply(lambda column: column.str.strip())
    return cells.map(_with_point) if separator == ";" else cells


def _check_rows(content: BinaryIO, separator: str, path: Path) -> None:
    """Refuse what no table holds, and name the lines that have fewer cells than the header: pandas fills them up."""
    content.seek(0)
    raw = content.read()
    if b"\0" in raw:
        raise AutoSpecError(f"{path}: cannot be read as a table: byte {raw.index(0)} is zero, as in a damaged file")
    lengths = dict(_cells_by_line(raw.decode("utf-8-sig"), separator))
    width = next(iter(lengths.values()), 0)
    short = [line for line, cells in lengths.items() if cells < width]
    if not short:
        return
    if short[-1] == max(lengths) and not raw.endswith((b"\n", b"\r")):
        raise AutoSpecError(f"{path}: is cut off: its last line has {lengths[short[-1]]} of {width} cells")
    lines = list_names(map(str, short))
    log.warning("%s: lines %s have fewer cells than the header, %d; the others are missing", path, lines, width)


def _cells_by_line(text: str, separator: str) -> Iterator[tuple[int, int]]:
    """(line, from 1; its cells) of every line that is not blank."""
    if separator == r"\s+":
        yield from ((number, len(line.split())) for number, line in enumerate(text.splitlines(), 1) if line.strip())
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    yield from ((reader.line_num, len(row)) for row in reader if row)


def read_table(path: Path) -> pd.DataFrame:
    """A table of cells under its header; a column that is there twice with the same values counts once.

    Args:
        path: The file.

    Returns:
        Text under the header's names.

    Raises:
        AutoSpecError: It cannot be read, is empty, or has two columns of one name that differ.
    """
    return with_header(read_cells(path), path)


def with_header(cells: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Put cells under the names of row 0.

    Args:
        cells: Text, row 0 the header.
        path: Where it comes from, for messages.

    Returns:
        Text under the header's names.

    Raises:
        AutoSpecError: There is no row, or two columns of one name differ.
    """
    table = cells.iloc[1:].reset_index(drop=True)
    if table.empty:
        raise AutoSpecError(f"{path}: has no row below its header")
    header = [str(name) for name in cells.iloc[0]]
    counts = Counter(header)
    for name in [name for name, count in counts.items() if count > 1]:
        same = table.loc[:, [other == name for other in header]]
        differing = (same.ne(same.iloc[:, 0], axis=0)).any(axis=1)
        if differing.any():
            row = same[differing].iloc[0]
            raise AutoSpecError(
                f"{path}: column {name!r} occurs {counts[name]} times with different values, such as "
                f"{row.iloc[0]!r} and {next(value for value in row if value != row.iloc[0])!r}"
            )
    table.columns = pd.Index(header)
    return table.loc[:, ~table.columns.duplicated()]


def _separator(content: BinaryIO, path: Path) -> str:
    """What separates the cells of the first line; quoted text does not count."""
    whole = re.split(r"[\r\n]", content.readline().decode("utf-8-sig"), maxsplit=1)[0]
    content.seek(0)
    line = re.sub(r'"[^"]*"', "", whole)
    for separator in SEPARATORS:
        if separator in line:
            _check_columns(line.count(separator) + 1, path)
            return separator
    if b"\t" in content.read():
        raise AutoSpecError(f"{path}: cannot be read as a table: its first line is one cell, others have tabs")
    content.seek(0)
    _check_columns(len(line.split()), path)
    return r"\s+" if re.search(r"\S\s+\S", line) else ","


def _check_columns(columns: int, path: Path) -> None:
    if columns > MOST_COLUMNS:
        raise AutoSpecError(
            f"{path}: has {columns} columns, more than the {MOST_COLUMNS} that are read; keep those that are needed"
        )


def _with_point(text: str) -> str:
    return text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text


def is_missing(text: str) -> bool:
    """Whether a cell holds no value.

    Args:
        text: A cell.

    Returns:
        True for an empty one, n/a and the like.
    """
    return text.lower() in MISSING_TEXTS


def parse_number(text: str) -> float | None:
    """The value of a cell, NaN where it is missing, None where it is no number.

    Args:
        text: A cell.

    Returns:
        The value, NaN or None.
    """
    if is_missing(text):
        return np.nan
    try:
        value = float(text)
    except ValueError:
        return None
    return np.nan if value in MISSING_NUMBERS or not np.isfinite(value) else value


def parse_numbers(table: pd.DataFrame, ids: Sequence[str], path: Path) -> npt.NDArray[np.float64]:
    """The values of a table of numbers, NaN where one is missing.

    Args:
        table: Text.
        ids: The ids of its rows.
        path: Where it comes from, for messages.

    Returns:
        (rows, columns).

    Raises:
        AutoSpecError: A cell is text; it is named.
    """
    values = np.empty(table.shape)
    for index, column in enumerate(table.columns):
        for row, text in enumerate(table[column]):
            value = parse_number(text)
            if value is None:
                raise AutoSpecError(f"{path}: column {column!r} of subject {ids[row]} is {text!r}, which is no number")
            values[row, index] = value
    return values


def plain_id(text: str) -> str:
    """An id as files can be compared by it: without ``sub-`` before it, leading zeros, and what programs add.

    A path counts by its folder (``subjects/sub-001/``, ``sub-001/stats/aseg.stats``), a longitudinal run of FreeSurfer
    by its time point (``sub-001.long.sub-001_base``).

    Args:
        text: An id as a file has it.

    Returns:
        The id under which it is compared.
    """
    parts = [part for part in re.split(r"[/\\]", text.strip()) if part not in ("", ".", "stats")]
    parts = [part for part in parts if not part.endswith(".stats")]
    last = parts[-1] if parts else ""
    bare = re.sub(r"^sub[-_]", "", re.sub(r"\.long\..+$", "", last), flags=re.IGNORECASE)
    return bare.lstrip("0") or bare


def without_session(plain: str) -> str:
    """A plain id without the session that follows it (``001_ses-01``).

    Args:
        plain: See ``plain_id``.

    Returns:
        The subject's part.
    """
    return re.sub(r"[_-]ses-[A-Za-z0-9]+$", "", plain)
