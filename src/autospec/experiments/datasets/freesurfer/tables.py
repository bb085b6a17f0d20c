"""Tables by asegstats2table and aparcstats2table: several joined into one, under the column names of version 6."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.tables import parse_number, plain_id, read_cells, with_header
from autospec.errors import AutoSpecError
from autospec.experiments.datasets.freesurfer.volumes import COMPOSITES, OLD_NAMES, STRUCTURES

SUBJECT = "subject"

ID_COLUMNS = ("participant_id", "bids_participant_id", "bids_participant", "subject_id", SUBJECT)
SESSION_COLUMNS = ("session_id", "bids_session_id", "bids_session", "session")
"""Columns that say whose a row is, in tables of nipoppy and of one's own making."""

HEAD_NAMES = ("EstimatedTotalIntraCranialVol", "eTIV", "sTIV")
STRUCTURE_NAMES = frozenset({*STRUCTURES, *OLD_NAMES, *COMPOSITES}) - set(HEAD_NAMES)
KNOWN_NAMES = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in (*STRUCTURES, *COMPOSITES, *OLD_NAMES)}
"""FreeSurfer's names by their letters and digits alone."""

CORTICAL = re.compile(r"[lr]h_\w+_(thickness|thicknessstd|area|volume|meancurv|gauscurv|foldind|curvind)$")
"""A region of the cortex with its measure, in a table by aparcstats2table."""


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
    joint = read_measures(files[0], account)
    for file in files[1:]:
        joint = _join(joint, read_measures(file, account), file, account)
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
    renamed = {}
    for old, new in OLD_NAMES.items():
        if old not in table.columns:
            continue
        if new not in table.columns:
            table = table.rename(columns={old: new})
        elif (table[new] == "").any():
            table = table.assign(**{new: table[new].where(table[new] != "", table[old])}).drop(columns=old)
        else:
            continue
        renamed[old] = new
    if renamed:
        account.note("renamed columns: " + ", ".join(f"{old} is {new}" for old, new in renamed.items()))
    return table


def read_measures(file: Path, account: Account) -> pd.DataFrame:
    """Read a table by asegstats2table or aparcstats2table, also one by ``--transpose``, ``--meas`` or ``--etiv``.

    The corner cell says what is measured. Columns of structures that are no volumes get the measure behind their
    names, and volumes as a share of head size get ``_per_eTIV``, so that nothing takes them for mm³.

    Args:
        file: The table.
        account: Takes a line for what is not as usual.

    Returns:
        Text, first column ``subject``.

    Raises:
        AutoSpecError: The table cannot be read.
    """
    cells = read_cells(file)
    if _is_transposed(cells):
        account.note(f"{file.name}: subjects are its columns (--transpose), and are read so")
        cells = cells.T.reset_index(drop=True)
    table = with_header(cells, file)
    corner = str(table.columns[0])
    table = _known_names(_of_subjects(table), file, account)
    return _of_measure(table, corner, file, account)


def _of_subjects(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the subjects in its first column; a column of sessions, as nipoppy has it, goes into their ids."""
    ids = next((name for name in ID_COLUMNS if name in table.columns), table.columns[0])
    session = next((name for name in SESSION_COLUMNS if name in table.columns), None)
    subjects = table[ids]
    if session is not None:
        subjects = subjects + "_ses-" + table[session].str.removeprefix("ses-")
    rest = table.drop(columns=[name for name in {ids, session, *ID_COLUMNS} if name in table.columns])
    return pd.concat([subjects.rename(SUBJECT), rest], axis=1)


def _is_transposed(cells: pd.DataFrame) -> bool:
    """Whether structures stand in the first column, and none in the header."""
    header, column = (
        [_plain_name(name) in KNOWN_NAMES or bool(CORTICAL.match(name)) for name in names]
        for names in (cells.iloc[0, 1:].astype(str), cells.iloc[1:, 0].astype(str))
    )
    return sum(column) > 0 and not any(header)


def _known_names(table: pd.DataFrame, file: Path, account: Account) -> pd.DataFrame:
    """FreeSurfer's own names in place of those that R makes of them (``Left.Hippocampus``, ``X3rd.Ventricle``)."""
    names = {
        str(column): KNOWN_NAMES[_plain_name(column)]
        for column in table.columns[1:]
        if column not in KNOWN_NAMES.values() and KNOWN_NAMES.get(_plain_name(column), column) not in table.columns
    }
    if names:
        pairs = list_names(f"{theirs} is {ours}" for theirs, ours in names.items())
        account.note(f"{file.name}: columns under FreeSurfer's names: {pairs}")
    return table.rename(columns=names)


def _plain_name(column: object) -> str:
    """A column's name without what R, SPSS and pandas change of it."""
    bare = re.sub(r"[^a-z0-9]", "", str(column).lower())
    return re.sub(r"^x(?=\d)", "", bare)


def find_column(name: str, columns: Sequence[str]) -> str | None:
    """The column of this name, where ``G&S`` may be written ``G_and_S``, which a command line can hold.

    Args:
        name: As a user writes it.
        columns: The table's.

    Returns:
        The table's own name, or None.
    """
    if name in columns:
        return name
    wanted = _plain_name(name.replace("&", "_and_"))
    return next((column for column in columns if _plain_name(column.replace("&", "_and_")) == wanted), None)


def _of_measure(table: pd.DataFrame, corner: str, file: Path, account: Account) -> pd.DataFrame:
    """The table with names that tell volumes in mm³ from everything else."""
    structures = [str(column) for column in table.columns[1:] if column in STRUCTURE_NAMES]
    measure = re.fullmatch(r"Measure[:.](\w+)", corner)
    if measure and measure.group(1).lower() != "volume" and structures:
        account.warn(f"{file.name}: holds {measure.group(1)} of structures ({corner}), not volumes")
        return table.rename(columns={name: f"{name}_{measure.group(1)}" for name in structures})
    heads = [name for name in HEAD_NAMES if name in table.columns]
    if structures and any(all(parse_number(text) in (1.0, 100.0) for text in table[name]) for name in heads):
        account.warn(
            f"{file.name}: volumes are shares of head size (--etiv, --stiv), not mm³; head size itself is not known"
        )
        return table.drop(columns=heads).rename(columns={name: f"{name}_per_eTIV" for name in structures})
    return table


def _join(joint: pd.DataFrame, more: pd.DataFrame, file: Path, account: Account) -> pd.DataFrame:
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
    # any row stands in for one that is lacking, and is emptied below
    taken = [rows.get(key, 0) for key in keys]
    unusable = [times[key] != 1 for key in keys]
    _check_same(joint[~np.array(unusable)], more.iloc[taken].reset_index(drop=True)[~np.array(unusable)], file)
    added = more[new].iloc[taken].reset_index(drop=True)
    added.loc[unusable, :] = ""
    return pd.concat([joint, added], axis=1)


def _check_same(joint: pd.DataFrame, more: pd.DataFrame, file: Path) -> None:
    """AutoSpecError where a column that is there already has other values, so that one of the two would be lost."""
    for column in more.columns.intersection(joint.columns).drop(SUBJECT, errors="ignore"):
        pairs = zip(joint[SUBJECT], joint[column], more[column], strict=True)
        for subject, one, other in pairs:
            if one and other and one != other and parse_number(one) != parse_number(other):
                raise AutoSpecError(
                    f"{file}: column {column!r} of {subject} is {other}, and {one} in a table before it; leave one of "
                    "the tables out, or rename its columns"
                )
