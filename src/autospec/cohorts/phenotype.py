"""Phenotype tables: who the subjects are, joined to data by id."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from os.path import commonprefix
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.tables import parse_number, plain_id, read_table
from autospec.errors import AutoSpecError

PARTICIPANT = "participant_id"
"""What BIDS, and so ``dataset.columns.id`` unless told otherwise, calls the column of ids."""

NUMERIC = ("age", "motion", "head_size")
"""Columns of subjects that are numbers; every other one is a label."""


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
    subjects = _renamed(table, columns, path)
    for column in NUMERIC:
        if column in subjects.columns:
            subjects[column] = _numeric(subjects, column, account)
    account.note(f"{path.name}: {len(subjects)} rows")
    return subjects


def _renamed(table: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame:
    """A table under our names; a column that already has a name of ours and is not meant by it gets another."""
    ours = {theirs: name for name, theirs in columns.items() if theirs in table.columns}
    taken = [name for name in table.columns if name in ours.values() and name not in ours]
    subjects = table.rename(columns={**ours, **{name: f"{name} of {path.name}" for name in taken}})
    return subjects


def _numeric(subjects: pd.DataFrame, column: str, account: Account) -> list[float]:
    """Numbers of a covariate; text such as "Disenrolled" counts as missing, and is said."""
    values = [parse_number(text) for text in subjects[column]]
    odd = [f"{who} ({text})" for who, text, value in zip(subjects["id"], subjects[column], values, strict=True)
           if value is None]  # fmt: skip
    if odd:
        account.note(f"{column}: no number for {list_names(odd)}")
    return [np.nan if value is None else value for value in values]


def join_by_id(subjects: pd.DataFrame, ids: Sequence[str], account: Account, source: str) -> pd.DataFrame:
    """The subjects that have data, in the order of the data.

    Ids are compared without a ``sub-`` prefix and leading zeros, and, where no subject would be joined so, without the
    prefix that all ids of a side share. An id that occurs twice on a side is left out altogether, since nobody can tell
    which one is right.

    Args:
        subjects: The phenotype table, with a column ``id``.
        ids: The ids of the data.
        account: Takes a line for every subject left out.
        source: What the data are called.

    Returns:
        The joined rows, with ``row``, the index into ``ids``.

    Raises:
        AutoSpecError: No subject is joined.
    """
    theirs, ours = _comparable(list(subjects["id"]), list(ids), account, source)
    phenotype = _once(subjects["id"], theirs, account, "the phenotype table")
    data = _once(ids, ours, account, source)
    for key, row in phenotype.items():
        if key not in data:
            account.drop(subjects["id"].iloc[row], f"has no data in {source}")
    for key, row in data.items():
        if key not in phenotype:
            account.drop(ids[row], f"is in {source} but has no row in the phenotype table")
    both = [key for key in data if key in phenotype]
    account.note(f"{source}: {len(ids)} subjects, of whom {len(both)} are joined with the phenotype table")
    if not both:
        raise AutoSpecError(
            f"no id of {source} ({list_names(ids)}) is in the phenotype table ({list_names(subjects['id'])})"
        )
    table = subjects.iloc[[phenotype[key] for key in both]].reset_index(drop=True)
    return table.assign(row=[data[key] for key in both])


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


def _once(ids: Iterable[str], keys: Sequence[str], account: Account, source: str) -> dict[str, int]:
    """The index of every id whose key occurs once."""
    times = Counter(keys)
    for subject, key in zip(ids, keys, strict=True):
        if times[key] > 1:
            account.drop(subject, f"the id occurs {times[key]} times in {source}")
    return {key: index for index, key in enumerate(keys) if times[key] == 1}


def _comparable(theirs: list[str], ours: list[str], account: Account, source: str) -> tuple[list[str], list[str]]:
    """Keys under which the ids of the phenotype table and of the data can be equal."""
    plain = [plain_id(subject) for subject in theirs], [plain_id(subject) for subject in ours]
    bare = _without_prefix(theirs), _without_prefix(ours)
    if set(plain[0]) & set(plain[1]) or not set(bare[0]) & set(bare[1]):
        return plain
    account.warn(
        f"ids are compared by their numbers alone: {list_names(theirs[:2])} in the table, {list_names(ours[:2])} in "
        f"{source}"
    )
    return bare


def _without_prefix(ids: list[str]) -> list[str]:
    """Ids less the part that all begin with, where nothing but their numbers is left; else as they are."""
    # ids are no paths: character by character is what is meant
    prefix = re.sub(r"\d+$", "", commonprefix(ids))  # noqa: RUF071
    bare = [subject.removeprefix(prefix) for subject in ids]
    return [plain_id(subject) for subject in (bare if all(subject.isdigit() for subject in bare) else ids)]
