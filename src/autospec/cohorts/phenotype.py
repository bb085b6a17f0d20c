"""Phenotype tables: who the subjects are, joined to data by id."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.tables import parse_number, plain_id, read_table, without_session
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
    subjects = _renamed(table, columns, path)
    for column in NUMERIC:
        if column in subjects.columns:
            subjects[column] = _numeric(subjects, column, account)
    account.note(f"{path.name}: {len(subjects)} rows")
    return subjects


def with_levels(subjects: pd.DataFrame, path: Path, columns: Mapping[str, str], account: Account) -> pd.DataFrame:
    """Replace codes by what the JSON file beside a BIDS table says they mean (``Levels``: ``1`` is ``male``).

    Args:
        subjects: The table under our names.
        path: The table's file; ``participants.json`` lies beside ``participants.tsv``.
        columns: Our names → the table's.
        account: Takes what was replaced.

    Returns:
        The table with the levels' names.

    Raises:
        AutoSpecError: The JSON file cannot be read.
    """
    for ours, levels in levels_of(path, columns).items():
        if ours in subjects.columns and ours not in NUMERIC and ours != "id":
            texts = [str(text) for text in subjects[ours]]
            used = sorted({text for text in texts if text in levels and levels[text] != text})
            if used:
                account.note(
                    f"{ours}: {', '.join(f'{text} is {levels[text]}' for text in used)} ({levels_file(path).name})"
                )
                subjects = subjects.assign(**{ours: [levels.get(text, text) for text in texts]})
    return subjects


def levels_file(path: Path) -> Path:
    """The JSON file that describes a table.

    Args:
        path: The table.

    Returns:
        Its path, whether it is there or not.
    """
    return path.with_name(path.name.split(".")[0] + ".json")


def levels_of(path: Path, columns: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The levels of the columns that a table's JSON file describes, by our names.

    Args:
        path: The table.
        columns: Our names → the table's.

    Returns:
        Code → meaning, by column; empty where there is no file.

    Raises:
        AutoSpecError: The file cannot be read.
    """
    file = levels_file(path)
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise AutoSpecError(f"{file}: cannot be read as JSON ({error})") from error
    ours: dict[str, str] = {theirs: name for name, theirs in columns.items()}
    described_levels: dict[str, dict[str, str]] = {}
    described: Any
    for theirs, described in (content if isinstance(content, dict) else {}).items():
        levels = described.get("Levels") if isinstance(described, dict) else None
        if isinstance(levels, dict):
            described_levels[ours.get(str(theirs), str(theirs))] = {
                str(code): _meaning(meaning) for code, meaning in levels.items()
            }
    return described_levels


def _meaning(level: object) -> str:
    """What a level is called: BIDS allows a text, or an object with a description."""
    return str(level.get("Description", level)) if isinstance(level, dict) else str(level)


def _renamed(table: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame:
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


def join_by_id(
    subjects: pd.DataFrame, ids: Sequence[str], account: Account, source: str, id_pattern: str | None = None
) -> pd.DataFrame:
    """The subjects that have data, in the order of the data.

    Ids are compared without a ``sub-`` prefix, leading zeros and what programs add (``plain_id``); where no subject
    would be joined so, without sessions, and then without the letters that all ids of one side begin with, if the
    other side has none. An id that occurs twice on a side is left out altogether, since nobody can tell which one is
    right.

    Args:
        subjects: The phenotype table, with a column ``id``.
        ids: The ids of the data.
        account: Takes a line for every subject left out.
        source: What the data are called.
        id_pattern: A regular expression whose first group is the id, for either side's ids that it fits.

    Returns:
        The joined rows, with ``row``, the index into ``ids``.

    Raises:
        AutoSpecError: No subject is joined.
    """
    theirs, ours = _comparable(list(subjects["id"]), list(ids), account, source, id_pattern)
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
        twice = _several(subjects["id"], theirs) or _several(ids, ours)
        raise AutoSpecError(
            f"no id of {source} ({list_names(ids)}) is in the phenotype table ({list_names(subjects['id'])})"
            + (f"; {twice}" if twice else "; an id pattern can say which part is the id")
        )
    table = subjects.iloc[[phenotype[key] for key in both]].reset_index(drop=True)
    return table.assign(row=[data[key] for key in both])


def _several(ids: Iterable[str], keys: Sequence[str]) -> str:
    """What to say where everybody has several rows: such as one per session."""
    times = Counter(keys)
    several = [subject for subject, key in zip(ids, keys, strict=True) if times[key] > 1]
    if not several or len(several) < len(keys):
        return ""
    return f"every subject occurs several times ({list_names(several[:2])}), such as once per session: choose one"


def per_session(subjects: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """A row per session: the table's own, or the subject's row for every session that the data have.

    Args:
        subjects: The phenotype table; a column ``session`` tells sessions.
        ids: The ids of the data, with their sessions (``01_ses-2``).

    Returns:
        The table with the session behind each id.
    """
    if "session" in subjects.columns:
        keys = [f"{subject}_ses-{plain_session(str(session))}"
                for subject, session in zip(subjects["id"], subjects["session"], strict=True)]  # fmt: skip
        return subjects.assign(id=keys)
    plain = [plain_id(text) for text in ids]
    pairs = [(row, key) for row, subject in enumerate(subjects["id"])
             for key in plain if without_session(key) == plain_id(str(subject))]  # fmt: skip
    expanded = subjects.iloc[[row for row, _ in pairs]].reset_index(drop=True)
    sessions = [key[len(without_session(key)) :] for _, key in pairs]
    return expanded.assign(
        id=[f"{subject}{session}" for subject, session in zip(expanded["id"], sessions, strict=True)],
        session=[plain_session(session) for session in sessions],
    )


def plain_session(text: str) -> str:
    """A session without ``ses-`` and leading zeros, as sessions are compared.

    Args:
        text: Such as ``ses-02``.

    Returns:
        Such as ``2``.
    """
    bare = re.sub(r"^[_-]?(ses[-_]?)?", "", text.strip(), flags=re.IGNORECASE)
    return bare.lstrip("0") or bare


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


Keys = list[str]


def _comparable(
    theirs: list[str], ours: list[str], account: Account, source: str, id_pattern: str | None
) -> tuple[Keys, Keys]:
    """Keys under which the ids of the phenotype table and of the data can be equal."""
    if id_pattern:
        theirs, ours = _by_pattern(theirs, id_pattern), _by_pattern(ours, id_pattern)
    plain = [plain_id(subject) for subject in theirs], [plain_id(subject) for subject in ours]
    if set(plain[0]) & set(plain[1]):
        return plain
    bare = [without_session(key) for key in plain[0]], [without_session(key) for key in plain[1]]
    if set(bare[0]) & set(bare[1]):
        account.note(f"{source}: ids are compared without their sessions, such as {plain[1][0]}")
        return bare
    numbers = _numbers_of(plain[0], plain[1])
    if numbers is None or not set(numbers[0]) & set(numbers[1]):
        return plain
    account.warn(
        f"ids are compared by their numbers alone: {list_names(theirs[:2])} in the table, {list_names(ours[:2])} in "
        f"{source}"
    )
    return numbers


def _by_pattern(ids: list[str], id_pattern: str) -> list[str]:
    """The first group of the pattern in each id that it fits; other ids as they are."""
    matches = [re.search(id_pattern, subject) for subject in ids]
    return [subject if match is None else match.group(1) for subject, match in zip(ids, matches, strict=True)]


def check_id_pattern(id_pattern: str | None, key: str) -> None:
    """Refuse a pattern of ids that is no regular expression with a group.

    Args:
        id_pattern: The pattern, or None.
        key: What a user mends it with.

    Raises:
        AutoSpecError: Says what it must be.
    """
    if id_pattern is None:
        return
    try:
        groups = re.compile(id_pattern).groups
    except re.error as error:
        raise AutoSpecError(f"{key}{id_pattern}: is no regular expression ({error})") from error
    if groups < 1:
        raise AutoSpecError(f"{key}{id_pattern}: needs a group in parentheses, the id; such as 'COBRE_(\\d+)_.*'")


def _numbers_of(theirs: Keys, ours: Keys) -> tuple[Keys, Keys] | None:
    """The ids' numbers, where the ids of one side are numbers, or both have the same letters before them.

    Other letters are other people: COBRE_001 is not MCIC_001.
    """
    prefixes = _letters(theirs), _letters(ours)
    if None in prefixes or (prefixes[0] and prefixes[1] and _word(prefixes[0]) != _word(prefixes[1])):
        return None
    bare = [
        [subject[len(prefix or "") :] for subject in ids] for ids, prefix in zip((theirs, ours), prefixes, strict=True)
    ]
    return [number.lstrip("0") or number for number in bare[0]], [number.lstrip("0") or number for number in bare[1]]


def _letters(ids: Keys) -> str | None:
    """What all ids begin with, where nothing but numbers is left after it; else None."""
    # ids are no paths: character by character is what is meant
    prefix = re.sub(r"\d+$", "", commonprefix(ids))  # noqa: RUF071
    return prefix if all(subject.removeprefix(prefix).isdigit() for subject in ids) else None


def _word(prefix: str) -> str:
    return re.sub(r"[^a-z0-9]", "", prefix.lower())
