"""Tables of subjects as files hold them: text first, numbers only where a number is meant."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.errors import AutoSpecError

MISSING_TEXTS = frozenset({"", "na", "n/a", "nan", "-9999", "-9999.0"})
"""What stands in a table where a value is missing, in lower case (-9999 as FreeSurfer and COINS write it)."""


def read_cells(path: Path) -> pd.DataFrame:
    """Every cell of a tab- or comma-separated file, plain or gzipped, as stripped text; row 0 is the header.

    Args:
        path: The file.

    Returns:
        Text, row 0 the header.

    Raises:
        AutoSpecError: It cannot be read.
    """
    try:
        cells = pd.read_csv(
            path, sep=_separator(path), header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except FileNotFoundError as error:
        raise AutoSpecError(f"{path}: there is no such file") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise AutoSpecError(f"{path}: cannot be read as a table: {' '.join(str(error).split())}") from error
    return cells.fillna("").apply(lambda column: column.str.strip())


def read_table(path: Path) -> pd.DataFrame:
    """A table of cells under its header, whose columns have different names.

    Args:
        path: The file.

    Returns:
        Text under the header's names.

    Raises:
        AutoSpecError: It cannot be read, is empty, or has a column twice.
    """
    cells = read_cells(path)
    header = [str(name) for name in cells.iloc[0]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise AutoSpecError(f"{path}: column {twice[0]!r} occurs {header.count(twice[0])} times")
    table = cells.iloc[1:].reset_index(drop=True)
    table.columns = pd.Index(header)
    if table.empty:
        raise AutoSpecError(f"{path}: has no row below its header")
    return table


def _separator(path: Path) -> str:
    with gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else path.open(encoding="utf-8-sig") as f:
        return "\t" if "\t" in f.readline() else ","


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
    return np.nan if value == -9999 or not np.isfinite(value) else value


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
    """An id without a ``sub-`` before it and without leading zeros, the two ways in which files differ.

    Args:
        text: An id as a file has it.

    Returns:
        The id under which it is compared.
    """
    bare = re.sub(r"^sub[-_]", "", text.strip(), flags=re.IGNORECASE)
    return bare.lstrip("0") or bare
