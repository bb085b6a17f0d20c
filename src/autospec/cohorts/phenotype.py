"""Phenotype tables: who the subjects are, joined to data by id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.tables import parse_number, read_table
from autospec.errors import AutoSpecError

PARTICIPANT = "participant_id"
"""What BIDS, and so ``dataset.columns.id`` unless told otherwise, calls the column of ids."""

NUMERIC = ("age", "motion", "head_size")
"""Columns of subjects that are numbers whatever they hold; ``as_numbers`` tells of others."""

LABELS = ("diagnosis", "sex", "site", "scanner")
"""Columns of subjects that are labels even where they are coded as numbers."""


def read_phenotype(
    path: Path, columns: Mapping[str, str], needed: Iterable[str], account: Account, key: str
) -> pd.DataFrame:
    """Read a phenotype table under our names.

    Args:
        path: The table.
        columns: Our names → the table's.
        needed: Our names of columns that must be there.
        account: Takes a line about the table.
        key: What a user mends a column's name with.

    Returns:
        One row per subject; text, but numbers where ``NUMERIC`` says so.

    Raises:
        AutoSpecError: The table cannot be read or lacks a needed column.
    """
    table = read_table(path)
    for column in needed:
        theirs = columns.get(column, column)
        if theirs not in table.columns:
            raise AutoSpecError(
                f"{key}{column}: {path} has no column {theirs!r}; it has {list_names(map(repr, table.columns))}"
            )
    subjects = _rename(table, columns, path)
    for column in NUMERIC:
        if column in subjects.columns:
            subjects[column] = _numeric(subjects, column, account)
    account.note(f"{path.name}: {len(subjects)} rows")
    return subjects


def _rename(table: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame:
    """A table under our names; a column that already has a name of ours and is not meant by it gets another."""
    ours = {theirs: name for name, theirs in columns.items() if theirs in table.columns}
    taken = [name for name in table.columns if name in ours.values() and name not in ours]
    subjects = table.rename(columns={**ours, **{name: f"{name} of {path.name}" for name in taken}})
    return subjects


def _numeric(subjects: pd.DataFrame, column: str, account: Account) -> list[float]:
    """Numbers of a covariate; text such as "Disenrolled" counts as missing, and is said, and so does a negative one."""
    values = [parse_number(text) for text in subjects[column]]
    values = [None if value is not None and value < 0 else value for value in values]
    odd = [f"{who} ({text})" for who, text, value in zip(subjects["id"], subjects[column], values, strict=True)
           if value is None]  # fmt: skip
    if odd:
        account.note(f"{column}: no number for {list_names(odd)}")
    return [np.nan if value is None else value for value in values]


def as_numbers(values: pd.Series) -> npt.NDArray[np.float64] | None:
    """A column of text as numbers, where all that is known of it is more than two different numbers.

    A site that is coded as a number is still a label (``LABELS``).

    Args:
        values: A column of the phenotype table.

    Returns:
        (n,) With NaN where missing; None for a column of labels.
    """
    if values.name in LABELS:
        return None
    numbers = [parse_number(str(text)) for text in values]
    if None in numbers:
        return None
    known = np.array(numbers, dtype=np.float64)
    return known if len(np.unique(known[np.isfinite(known)])) > 2 else None


def keep_complete(subjects: pd.DataFrame, data: npt.NDArray, account: Account, source: str) -> pd.DataFrame:
    """Keep the subjects none of whose values is NaN or infinite.

    Args:
        subjects: A table with ``id`` and ``row``, the index into the data.
        data: (n, ...).
        account: Takes a line for every subject left out.
        source: What the data are called.

    Returns:
        The rows that are left.

    Raises:
        AutoSpecError: No subject is left.
    """
    complete = np.isfinite(data[subjects["row"]].reshape(len(subjects), -1)).all(axis=1)
    for subject in subjects["id"][~complete]:
        account.drop(subject, f"has missing values (NaN or infinite) in {source}")
    if not complete.any():
        raise AutoSpecError(f"no subject has complete data in {source}")
    return subjects[complete].reset_index(drop=True)
