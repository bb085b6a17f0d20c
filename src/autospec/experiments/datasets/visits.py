"""Several sessions of a subject: one is chosen, they are averaged, or all are kept as samples of the same subject."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.joining import join_by_id, plain_session
from autospec.cohorts.tables import plain_id, without_session
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CohortConfig

CHOICES = ("first", "last", "average", "all")
"""What ``dataset.session`` may be beside the name of a session."""

SESSION = "session"
"""The column of the phenotype table that tells sessions, where it has rows for each."""


@dataclass(frozen=True)
class Visit:
    """A sample: whose it is, which session, and the rows of the data that it is made of."""

    subject: str
    session: str
    rows: tuple[int, ...]


def check_session(config: CohortConfig) -> None:
    """Refuse groups by session where one session is chosen.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Says which key to give.
    """
    if SESSION in config.group_by and config.session != "all":
        raise AutoSpecError(f"dataset.group_by={config.group_by}: groups by session need dataset.session=all")


def join_visits(
    subjects: pd.DataFrame, ids: Sequence[str], config: CohortConfig, account: Account, source: str
) -> tuple[pd.DataFrame, list[Visit]]:
    """Join a phenotype table with data that may hold several sessions of a subject.

    Args:
        subjects: The phenotype table, with ``id`` and perhaps ``session``.
        ids: The ids of the data, with their sessions (``sub-01_ses-2``) where there are any.
        config: ``dataset.session`` and ``dataset.id_pattern``.
        account: Takes a line for every subject left out.
        source: What the data are called.

    Returns:
        The joined rows, ``row`` being the index into the visits, and the visits.

    Raises:
        AutoSpecError: The data name no session, or none that is asked for.
    """
    if config.session is None:
        _check_one_session(ids, source)
        visits = [Visit(subject, "", (row,)) for row, subject in enumerate(ids)]
        return join_by_id(subjects, list(ids), account, source, config.id_pattern), visits
    visits = _chosen(_visits(ids, source), config.session, account, source)
    subjects = _with_sessions(subjects)
    people = _of_sessions(subjects, config.session, visits)
    names = [_key(visit.subject, visit.session, config.session) for visit in visits]
    joined = join_by_id(people, names, account, source, config.id_pattern)
    if config.session == "all":
        joined = joined.assign(
            id=[without_session(str(subject)) for subject in joined["id"]],
            session=[visits[row].session for row in joined["row"]],
        )
    return joined, visits


def visit_ids(subjects: pd.DataFrame) -> list[str]:
    """The ids of a prepared cohort's rows, with the session where the cohort has several of a subject.

    Args:
        subjects: The people of a prepared cohort.

    Returns:
        Such as ``sub-01_ses-2``.
    """
    ids = [str(subject) for subject in subjects["id"]]
    if SESSION not in subjects.columns or len(set(ids)) == len(ids):
        return ids
    return [f"{subject}_ses-{session}" for subject, session in zip(ids, subjects[SESSION], strict=True)]


def _check_one_session(ids: Sequence[str], source: str) -> None:
    """AutoSpecError where a subject has several sessions, which would count as so many subjects."""
    plain = [plain_id(text) for text in ids]
    several = {without_session(key) for key in plain if without_session(key) != key}
    times = Counter(without_session(key) for key in plain if without_session(key) in several)
    repeated = [subject for subject, count in times.items() if count > 1]
    if repeated:
        raise AutoSpecError(
            f"{source}: holds several sessions of {list_names(repeated)}; dataset.session chooses one, or averages"
        )


def _with_sessions(subjects: pd.DataFrame) -> pd.DataFrame:
    """The table with bare ids, and the sessions that stood behind them in a column."""
    bare = [without_session(str(subject)) for subject in subjects["id"]]
    sessions = [str(subject)[len(own) :] for subject, own in zip(subjects["id"], bare, strict=True)]
    if SESSION not in subjects.columns and any(sessions):
        subjects = subjects.assign(**{SESSION: [plain_session(session) for session in sessions]})
    return subjects.assign(id=bare)


def of_visits(values: npt.NDArray, visits: Sequence[Visit]) -> npt.NDArray:
    """The data of visits: of one row as they are, of several their mean.

    Args:
        values: (rows, ...).
        visits: What each sample is made of.

    Returns:
        (visits, ...).
    """
    return np.stack([values[visit.rows[0]] if len(visit.rows) == 1 else values[list(visit.rows)].mean(axis=0)
                     for visit in visits])  # fmt: skip


def _visits(ids: Sequence[str], source: str) -> list[Visit]:
    """Every row with its subject and session; AutoSpecError where no row names a session."""
    visits = []
    for row, text in enumerate(ids):
        plain = plain_id(text)
        bare = without_session(plain)
        visits.append(Visit(bare, plain_session(plain[len(bare) :]), (row,)))
    if not any(visit.session for visit in visits):
        raise AutoSpecError(f"dataset.session: the ids of {source} name no session ({list_names(ids)})")
    return visits


def _chosen(visits: list[Visit], choice: str, account: Account, source: str) -> list[Visit]:
    """The visits that ``dataset.session`` asks for."""
    by_subject: dict[str, list[Visit]] = {}
    for visit in visits:
        by_subject.setdefault(visit.subject, []).append(visit)
    counts = sorted({len(own) for own in by_subject.values()})
    account.note(f"{source}: {' or '.join(map(str, counts))} session(s) a subject; dataset.session={choice}")
    if choice == "all":
        return visits
    chosen = []
    for subject, own in by_subject.items():
        in_order = sorted(own, key=lambda visit: _natural(visit.session))
        if choice == "average":
            chosen.append(Visit(subject, "", tuple(visit.rows[0] for visit in in_order)))
        elif choice in CHOICES:
            chosen.append(in_order[0 if choice == "first" else -1])
        else:
            fitting = [visit for visit in own if visit.session == plain_session(choice)]
            if len(fitting) == 1:
                chosen.append(fitting[0])
            else:
                account.drop(subject, f"has {len(fitting) or 'no'} session {choice} in {source}")
    if not chosen:
        names = list_names(sorted({visit.session for visit in visits}))
        raise AutoSpecError(f"dataset.session={choice}: {source} has no such session, but {names}")
    return chosen


def _of_sessions(subjects: pd.DataFrame, choice: str, visits: Sequence[Visit]) -> pd.DataFrame:
    """One row of the phenotype table per visit, under the key that visits are joined by."""
    keys = [plain_id(str(subject)) for subject in subjects["id"]]
    if SESSION not in subjects.columns:
        if choice != "all":
            return subjects
        rows = [(row, visit) for row, key in enumerate(keys) for visit in visits if visit.subject == key]
        expanded = subjects.iloc[[row for row, _ in rows]].reset_index(drop=True)
        return expanded.assign(id=[_key(str(subject), visit.session, choice)
                                   for subject, (_, visit) in zip(expanded["id"], rows, strict=True)])  # fmt: skip
    sessions = [plain_session(str(text)) for text in subjects[SESSION]]
    if choice == "all":
        return subjects.assign(id=[_key(str(a), b, choice) for a, b in zip(subjects["id"], sessions, strict=True)])
    of_subject = {visit.subject: visit.session for visit in visits}
    if choice == "average":
        # what is said of a subject is taken from the first of the sessions
        return subjects[~pd.Series(keys, index=subjects.index).duplicated()].reset_index(drop=True)
    fitting = [of_subject.get(key) == session for key, session in zip(keys, sessions, strict=True)]
    return subjects[fitting].reset_index(drop=True)


def _key(subject: str, session: str, choice: str) -> str:
    return f"{subject}_ses-{session}" if choice == "all" else subject


def _natural(text: str) -> tuple[tuple[int, str], ...]:
    """An order in which 2 comes before 10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text))
