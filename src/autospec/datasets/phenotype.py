"""Phenotype tables: who the people are, joined to data by id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.config.schema import CohortConfig
from autospec.datasets.account import Account, named
from autospec.datasets.tables import number, plain_id, read_table
from autospec.errors import AutoSpecError

NUMERIC = ("age", "motion")
"""Columns of people that are numbers; every other one is a label."""


def read_people(path: Path, config: CohortConfig, account: Account) -> pd.DataFrame:
    """The phenotype table with our column names (``dataset.columns``): text, but numbers in age and motion."""
    table = read_table(path)
    needed = ("id", config.target, *config.group_by)
    for column in needed:
        theirs = config.columns.get(column, column)
        if theirs not in table.columns:
            raise AutoSpecError(
                f"dataset.columns.{column}: {path} has no column {theirs!r}; it has {named(map(repr, table.columns))}"
            )
    ours = {theirs: name for name, theirs in config.columns.items() if theirs in table.columns}
    people = table.rename(columns=ours)
    for column in NUMERIC:
        if column in people.columns:
            people[column] = _numeric(people, column, account)
    account.note(f"{path.name}: {len(people)} rows")
    return people


def _numeric(people: pd.DataFrame, column: str, account: Account) -> list[float]:
    """Numbers of a covariate; text such as "Disenrolled" counts as missing, and is said."""
    values = [number(text) for text in people[column]]
    odd = [f"{who} ({text})" for who, text, value in zip(people["id"], people[column], values, strict=True)
           if value is None]  # fmt: skip
    if odd:
        account.note(f"{column}: no number for {named(odd)}")
    return [np.nan if value is None else value for value in values]


def joined(people: pd.DataFrame, ids: Sequence[str], account: Account, source: str) -> pd.DataFrame:
    """The people that have data, in the order of the data, with ``row``, the index into ``ids``.

    Ids are compared without a ``sub-`` prefix and leading zeros. An id that occurs twice on a side is left out
    altogether, since nobody can say which one is right.
    """
    phenotype = _once(people["id"], account, "the phenotype table")
    data = _once(ids, account, source)
    for key, row in phenotype.items():
        if key not in data:
            account.drop(people["id"].iloc[row], f"has no data in {source}")
    for key, row in data.items():
        if key not in phenotype:
            account.drop(ids[row], f"is in {source} but has no row in the phenotype table")
    both = [key for key in data if key in phenotype]
    account.note(f"{source}: {len(ids)} subjects, of whom {len(both)} are joined with the phenotype table")
    if not both:
        raise AutoSpecError(f"no id of {source} ({named(ids)}) is in the phenotype table ({named(people['id'])})")
    table = people.iloc[[phenotype[key] for key in both]].reset_index(drop=True)
    return table.assign(row=[data[key] for key in both])


def with_complete_data(people: pd.DataFrame, data: npt.NDArray, account: Account, source: str) -> pd.DataFrame:
    """The people none of whose values in ``data`` (by ``row``) is NaN or infinite."""
    complete = np.isfinite(data[people["row"]].reshape(len(people), -1)).all(axis=1)
    for subject in people["id"][~complete]:
        account.drop(subject, f"has missing values (NaN or infinite) in {source}")
    if not complete.any():
        raise AutoSpecError(f"nobody has complete data in {source}")
    return people[complete].reset_index(drop=True)


def _once(ids: Iterable[str], account: Account, source: str) -> dict[str, int]:
    """The index of every id that occurs once."""
    ids = list(ids)
    times = Counter(map(plain_id, ids))
    for own in ids:
        if times[plain_id(own)] > 1:
            account.drop(own, f"the id occurs {times[plain_id(own)]} times in {source}")
    return {plain_id(own): index for index, own in enumerate(ids) if times[plain_id(own)] == 1}
