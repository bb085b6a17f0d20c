"""People joined to their data by ids, which files write in many ways."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from os.path import commonprefix

import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.tables import plain_id, without_session
from autospec.errors import AutoSpecError

Keys = list[str]


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


def _once(ids: Iterable[str], keys: Sequence[str], account: Account, source: str) -> dict[str, int]:
    """The index of every id whose key occurs once."""
    times = Counter(keys)
    for subject, key in zip(ids, keys, strict=True):
        if times[key] > 1:
            account.drop(subject, f"the id occurs {times[key]} times in {source}")
    return {key: index for index, key in enumerate(keys) if times[key] == 1}


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
