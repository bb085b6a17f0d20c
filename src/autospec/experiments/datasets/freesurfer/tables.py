"""Tables by asegstats2table and aparcstats2table: several joined into one, under the column names of version 6."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.tables import plain_id, read_table
from autospec.experiments.datasets.freesurfer.volumes import OLD_NAMES

SUBJECT = "subject"


def join_tables(files: Sequence[Path], account: Account) -> pd.DataFrame:
    """Join tables: one row per subject of the first, with the columns of all; the first column is the subject.

    A later table adds the columns that are new. Subjects it lacks have empty cells there, and are named; one that is
    in a later table alone, or twice in one, is left out and named.

    Args:
        files: Tables by asegstats2table and aparcstats2table.
        account: Takes a line for what does not fit.

    Returns:
        Text, first column ``subject``.

    Raises:
        AutoSpecError: A table cannot be read.
    """
    joint = _of_subjects(files[0])
    for file in files[1:]:
        joint = _joined(joint, _of_subjects(file), file, account)
    return joint


def rename_columns(table: pd.DataFrame, account: Account) -> pd.DataFrame:
    """Give the columns the names of version 6; where subjects differ in version, each gives what it has.

    A table that has both names, and every value under the newer one, keeps both columns.

    Args:
        table: Text.
        account: Takes the old and new names.

    Returns:
        The table under the names of version 6.
    """
    old_names = {
        old: new
        for old, new in OLD_NAMES.items()
        if old in table.columns and (new not in table.columns or (table[new] == "").any())
    }
    if old_names:
        account.note("renamed columns: " + ", ".join(f"{old} is {new}" for old, new in old_names.items()))
    for old, new in old_names.items():
        if new in table.columns:
            table = table.assign(**{new: table[new].where(table[new] != "", table[old])}).drop(columns=old)
    return table.rename(columns=old_names)


def _of_subjects(file: Path) -> pd.DataFrame:
    table = read_table(file)
    return table.rename(columns={table.columns[0]: SUBJECT})


def _joined(joint: pd.DataFrame, more: pd.DataFrame, file: Path, account: Account) -> pd.DataFrame:
    new = [column for column in more.columns if column not in joint.columns]
    times = Counter(map(plain_id, more[SUBJECT]))
    rows = {plain_id(subject): row for row, subject in enumerate(more[SUBJECT])}
    keys = [plain_id(subject) for subject in joint[SUBJECT]]
    for subject in more[SUBJECT]:
        if plain_id(subject) not in keys:
            account.drop(subject, f"is in {file.name} alone")
    lacking = [subject for subject, key in zip(joint[SUBJECT], keys, strict=True) if times[key] != 1]
    if lacking:
        account.note(f"{file.name}: no row, or several, for {list_names(lacking)}")
    added = more[new].iloc[[rows.get(key, 0) for key in keys]].reset_index(drop=True)
    unusable = [times[key] != 1 for key in keys]
    added.loc[unusable, :] = ""
    return pd.concat([joint, added], axis=1)
