"""Which files of a folder belong to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from autospec.cohorts.exclusions import Account
from autospec.cohorts.tables import is_missing, plain_id
from autospec.errors import AutoSpecError

SPM_LETTERS = "swraufdpm"
"""What SPM puts before a name: smoothed, normalised, realigned, slice-timed, unwarped, and toolboxes' own."""

ID = "{id}"
SESSION = re.compile(r"(?:^|_)ses-([A-Za-z0-9]+)")
IMAGES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Source:
    """What is there of one subject: a file of data, the file of the subject's motion, the file with the maps."""

    id: str
    file: Path
    confounds: Path | None = None
    maps: Path | None = None
    position: int = 0
    """The subject's place, from 0, in a file that holds several."""
    tr_s: float | None = None
    """Seconds between volumes, where they are needed: as given, or as sidecar or header say."""


@dataclass(frozen=True)
class Folder:
    """What a layout finds in a folder; ``columns`` are our names → the phenotype table's."""

    layout: str
    sources: Sequence[Source]
    phenotype: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    subjects: pd.DataFrame | None = None
    """The phenotype itself, where the data come with no table but labels."""


def match_pattern(folder: Path, pattern: str) -> Iterator[tuple[str, Path]]:
    """(id, file) of every file below a folder that fits a pattern such as ``sub-{id}/func/*_bold.nii.gz``.

    Args:
        folder: The cohort's folder.
        pattern: Relative to it, with ``{id}``.

    Yields:
        Id and file.
    """
    expression = _expression(pattern)
    for file in sorted(folder.glob(re.sub(r"\*+", "*", pattern.replace(ID, "*")))):
        match = expression.fullmatch(file.relative_to(folder).as_posix())
        if match and not file.is_dir():
            yield match.group("id"), file


def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression: ``*`` stays within a name, a second ``{id}`` is the first one again.

    An id has no underscore where more of the name may follow it, as in BIDS: ``sub-01_task-rest`` is subject 01.
    """
    plain = re.escape(pattern).replace(re.escape("*"), "[^/]*")
    ends = pattern.split(ID, 1)[1][:1] in ("/", ".")
    subject = "(?P<id>[^/]+)" if ends else "(?P<id>[^/_]+)"
    return re.compile(plain.replace(re.escape(ID), subject, 1).replace(re.escape(ID), "(?P=id)"))


def find_scans(folder: Path, patterns: Sequence[str], account: Account, all_sessions: bool = False) -> list[Source]:
    """One scan per subject, by the patterns together; the account names whoever has several and is left out.

    Args:
        folder: The cohort's folder.
        patterns: Relative to it, with ``{id}``.
        account: Takes a line for every subject left out.
        all_sessions: Take one scan of each session instead.

    Returns:
        A source per subject, or per session.

    Raises:
        AutoSpecError: No scan fits.
    """
    sources = (find_visits if all_sessions else find_files)(folder, patterns, account, IMAGES)
    return [replace(source, confounds=find_confounds(source.file)) for source in sources]


def find_visits(folder: Path, patterns: Sequence[str], account: Account, ends: tuple[str, ...]) -> list[Source]:
    """One file per session of each subject, called ``<id>_ses-<session>``.

    Args:
        folder: The cohort's folder.
        patterns: Relative to it, with ``{id}``.
        account: Takes a line for every session left out, since it has several files.
        ends: How the files' names end.

    Returns:
        A source per session.

    Raises:
        AutoSpecError: No file fits.
    """
    sources = []
    for candidates in _by_subject(folder, patterns, "--scans", ends).values():
        by_session: dict[str, list[tuple[str, Path]]] = {}
        for subject, file in candidates:
            match = SESSION.search(file.name)
            by_session.setdefault(f"{subject}_ses-{match.group(1)}" if match else subject, []).append((subject, file))
        for visit, files in by_session.items():
            if len(files) > 1:
                names = ", ".join(file.relative_to(folder).as_posix() for _, file in files)
                account.drop(visit, f"has {len(files)} scans ({names}); choose one with --scans")
            else:
                sources.append(Source(visit, files[0][1]))
    if not sources:
        raise AutoSpecError(f"{folder}: no scan fits {' or '.join(patterns)}")
    return sources


def find_files(
    folder: Path, patterns: Sequence[str], account: Account, ends: tuple[str, ...], not_these: str | None = None
) -> list[Source]:
    """One file per subject, by the patterns together; the account names whoever has several and is left out.

    Args:
        folder: The cohort's folder.
        patterns: Relative to it, with ``{id}``.
        account: Takes a line for every subject left out.
        ends: How the files' names end.
        not_these: A part of the names of files that are something else.

    Returns:
        A source per subject.

    Raises:
        AutoSpecError: No file fits.
    """
    files = _by_subject(folder, patterns, "--scans", ends)
    sources = []
    for every in files.values():
        candidates = [(subject, file) for subject, file in every if not_these is None or not_these not in file.name]
        if len(candidates) > 1:
            names = ", ".join(other.relative_to(folder).as_posix() for _, other in candidates)
            account.drop(candidates[0][0], f"has {len(candidates)} scans ({names}); choose one with --scans")
        elif candidates:
            sources.append(Source(*candidates[0]))
    if not sources:
        hint = "; every subject has several, choose with --scans" if files else ""
        raise AutoSpecError(f"{folder}: no scan fits {' or '.join(patterns)}{hint}")
    return sources


def add_motion(folder: Path, sources: Sequence[Source], pattern: str, account: Account) -> list[Source]:
    """The sources with the file of motion that fits a pattern; the account names whoever has none, or several.

    Args:
        folder: The cohort's folder.
        sources: Every subject's scan.
        pattern: ``--motion``, relative to the folder, with ``{id}``.
        account: Takes a line for every subject left out.

    Returns:
        The sources with their files of motion.

    Raises:
        AutoSpecError: No file fits.
    """
    files = _by_subject(folder, [pattern], "--motion", ("",))
    if not files:
        raise AutoSpecError(f"{folder}: no file fits --motion {pattern}")
    with_motion = []
    for source in sources:
        fitting = [file for _, file in files.get(plain_id(source.id), [])]
        if len(fitting) == 1:
            with_motion.append(replace(source, confounds=fitting[0]))
        else:
            account.drop(source.id, f"has {len(fitting) or 'no'} file(s) that fit --motion {pattern}")
    return with_motion


def _by_subject(
    folder: Path, patterns: Sequence[str], option: str, ends: tuple[str, ...]
) -> dict[str, list[tuple[str, Path]]]:
    """(id as it is written, file) of the files that fit any of the patterns and end so, under each subject's id."""
    for pattern in patterns:
        check_pattern(pattern, option)
    files: dict[str, list[tuple[str, Path]]] = {}
    for subject, file in dict.fromkeys(pair for pattern in patterns for pair in match_pattern(folder, pattern)):
        if file.name.endswith(ends):
            files.setdefault(plain_id(subject), []).append((subject, file))
    return files


def check_pattern(pattern: str, option: str) -> None:
    """Refuse a pattern without an id, or one that leaves the folder.

    Args:
        pattern: Relative to the cohort's folder.
        option: The option that gave it.

    Raises:
        AutoSpecError: Says what it must have.
    """
    if ID not in pattern:
        raise AutoSpecError(f"{option} {pattern}: must have {ID} where the subject's id stands")
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise AutoSpecError(f"{option} {pattern}: must be relative to the folder and stay within it")


def find_listed_scans(folder: Path, subjects: pd.DataFrame, column: str, account: Account) -> list[Source]:
    """The scan that a column of the phenotype table names for each subject; a path may not leave the folder.

    Args:
        folder: The cohort's folder.
        subjects: The phenotype table.
        column: ``--files``, the column that names the scans.
        account: Takes a line for every subject left out.

    Returns:
        A source per subject.

    Raises:
        AutoSpecError: The table lacks the column, or a path leaves the folder.
    """
    if column not in subjects.columns:
        raise AutoSpecError(f"--files {column}: the phenotype table lacks it; it has {', '.join(subjects.columns)}")
    sources = []
    for subject, text in zip(subjects["id"], subjects[column], strict=True):
        if is_missing(str(text)):
            account.drop(subject, f"{column} names no file")
            continue
        file = resolve_inside(folder, str(text), f"subject {subject}: {column}")
        sources.append(Source(subject, file, find_confounds(file)))
    return sources


def resolve_inside(folder: Path, text: str, what: str) -> Path:
    """A file named by a table, below the folder.

    Args:
        folder: The cohort's folder.
        text: The path in the table.
        what: Whose it is, for the message.

    Returns:
        The file.

    Raises:
        AutoSpecError: It lies elsewhere, also behind a link.
    """
    file = folder / text
    if not file.resolve().is_relative_to(folder.resolve()):
        raise AutoSpecError(f"{what} is {text!r}, which leaves {folder}; files must lie within the cohort's folder")
    return file


def find_confounds(scan: Path) -> Path | None:
    """The file of a scan's motion beside it, by the names of NIAK, SPM, FSL or fMRIPrep.

    Args:
        scan: The scan's file.

    Returns:
        The file, or None where there is none.
    """
    stem = scan.name.removesuffix(".gz").removesuffix(".nii")
    for name in (f"{stem}.tsv.gz", f"{stem}.par", f"{stem}_mcf.par", f"{stem}.1D", *_names_of_spm(stem)):
        if scan.with_name(name).is_file():
            return scan.with_name(name)
    entities = _entities(stem)
    for table in sorted(scan.parent.glob("*confounds*.tsv")):
        parts = {part for part in _entities(table.stem) if "-" in part and not part.startswith("desc-")}
        if parts and parts <= entities and any(part.startswith("sub-") for part in parts):
            return table
    return None


def _names_of_spm(stem: str) -> list[str]:
    """What SPM may call the motion of a scan, whose name it puts a letter before at every step (``swraufunc``)."""
    starts = [0]
    while len(stem) > starts[-1] + 1 and stem[starts[-1]] in SPM_LETTERS and len(starts) < 7:
        starts.append(starts[-1] + 1)
    return [f"rp_{stem[start:]}.txt" for start in starts]


def _entities(stem: str) -> set[str]:
    """The parts of a BIDS name, without leading zeros of numbers: ``run-01`` is ``run-1``."""
    return {re.sub(r"-0+(?=\d+$)", "-", part) for part in stem.split("_")}
