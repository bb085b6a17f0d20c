"""Outputs of the GIFT toolbox: component time-courses and maps as NIfTI, or back-reconstructed in .mat files.

GIFT numbers subjects by their order in its analysis, and its files hold no ids: a list of ids in that order is asked
for, since a guess would give subjects one another's diagnoses.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.cohorts.cobre_hdf5 import component_positions
from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.gift_maps import find_maps, find_mask, is_mat, read_image, read_image_maps, reorder_voxels
from autospec.cohorts.mat_files import Struct, read_mat
from autospec.cohorts.options import Options
from autospec.cohorts.source_files import Folder, Source
from autospec.cohorts.subject_file import Part
from autospec.cohorts.tables import is_missing
from autospec.errors import AutoSpecError
from autospec.foreign.files import read_text

CALIBRATED = re.compile(r"_ica_c(?P<person>\d+)-(?P<session>\d+)\.mat$")
KINDS = (
    re.compile(r"_sub(?P<person>\d+)_timecourses_ica_s(?P<session>\d+)_\.nii(\.gz)?$"),
    CALIBRATED,
    re.compile(r"_ica_br(?P<person>\d+)\w*\.mat$"),
)
"""Names of the files, the kind that is easiest to trust first; a back-reconstruction holds all sessions."""


def recognises(folder: Path) -> bool:
    """Whether a folder holds outputs of GIFT for single subjects.

    Args:
        folder: A folder of files.

    Returns:
        True where a file has a name of GIFT's.
    """
    return any(kind.search(file.name) for file in folder.iterdir() for kind in KINDS)


def find_sources(options: Options, account: Account) -> Folder:
    """One subject per number in GIFT's file names, called by the ids of ``--ids``.

    Args:
        options: What the user asks for.
        account: Takes a line for every subject left out.

    Returns:
        The sources and the phenotype table.

    Raises:
        AutoSpecError: There is no output of the session, or the list of ids does not fit it.
    """
    files = _files(options)
    ids = _ids(options, max(files))
    mask = find_mask(options)
    sources = []
    for number, subject in enumerate(ids, start=1):
        if is_missing(subject):
            account.drop(f"line {number} of {options.ids and options.ids.name}", "holds no id for GIFT's subject there")
        elif number not in files:
            account.drop(
                subject, f"is number {number} in {options.ids and options.ids.name}, which GIFT has no file of"
            )
        else:
            sources.append(Source(subject, files[number], maps=find_maps(files[number], mask)))
    if mask is None and any(is_mat(source.file) for source in sources):
        account.note(
            f"{options.folder.name}: no maps, since .mat files do not say where their voxels lie; "
            "name GIFT's mask with --mask"
        )
    account.note(f"{options.folder.name}: GIFT outputs of {len(files)} subjects, session {options.session}")
    return Folder("gift", sources, options.phenotype or options.folder / "participants.tsv", options.columns)


def read(source: Source, options: Options, with_maps: bool = True) -> Part:
    """Read a subject's components.

    Args:
        source: The subject's files.
        options: Session, mask, and which components are kept.
        with_maps: Whether maps are wanted.

    Returns:
        Time-courses (T, components), and maps (components, voxels of ``common_grid``) where they are at hand.

    Raises:
        AutoSpecError: A file is damaged, or does not hold what it should.
    """
    content = read_mat(source.file) if is_mat(source.file) else {}
    one = _session(content, options.session, source.file)
    courses = _timecourses(one, source.file) if content else read_image(source.file)
    if courses.ndim != 2:
        raise AutoSpecError(f"{source.file}: time-courses are {courses.shape}, not (time, components)")
    maps = _maps(one, source, options) if with_maps and source.maps is not None else None
    if maps is not None and len(maps) != courses.shape[1]:
        raise AutoSpecError(f"{source.maps}: {len(maps)} maps for {courses.shape[1]} time-courses")
    if options.components is not None:
        chosen = component_positions(options.components, courses.shape[1])
        courses, maps = courses[:, chosen], None if maps is None else maps[chosen]
    return Part(courses, maps)


def _files(options: Options) -> dict[int, Path]:
    """The file of each of GIFT's numbers, of the kind that comes first in KINDS."""
    for kind in KINDS:
        files: dict[int, Path] = {}
        for file in sorted(options.folder.iterdir()):
            match = kind.search(file.name)
            if match is None or int(match.groupdict().get("session") or options.session) != options.session:
                continue
            number = int(match["person"])
            if number in files:
                raise AutoSpecError(f"{options.folder}: {files[number].name} and {file.name} are both subject {number}")
            files[number] = file
        if files:
            return files
    raise AutoSpecError(f"{options.folder}: no output of GIFT for session {options.session}")


def _ids(options: Options, subjects: int) -> list[str]:
    """The lines of ``--ids``, one per number of GIFT from 1; one without an id keeps its place."""
    if options.ids is None:
        raise AutoSpecError(
            "--ids: GIFT numbers subjects by their order in its analysis; name a text file with their ids in this "
            "order, one per line"
        )
    try:
        lines = [line.strip() for line in read_text(options.ids).splitlines()]
    except AutoSpecError as error:
        raise AutoSpecError(f"--ids {error}") from error
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) != subjects:
        hint = "; it must have no header line, and none for a subject whom GIFT did not analyse"
        raise AutoSpecError(
            f"--ids {options.ids}: {len(lines)} lines, but GIFT's files count {subjects} subjects"
            + (hint if len(lines) > subjects else "")
        )
    twice = sorted({subject for subject in lines if lines.count(subject) > 1 and not is_missing(subject)})
    if twice:
        raise AutoSpecError(f"--ids {options.ids}: twice: {list_names(twice)}")
    return lines


def _session(content: Struct, session: int, file: Path) -> Struct:
    """The variables of one session: an element of ``compSet``, or what the file holds."""
    if "compSet" not in content:
        return content
    sets = content["compSet"]
    if not isinstance(sets, list) or len(sets) < session:
        raise AutoSpecError(f"{file}: compSet holds no session {session}")
    element: Struct = sets[session - 1]
    return element


def _timecourses(content: Struct, file: Path) -> npt.NDArray[np.float64]:
    """(time, components): ``tc``, which a back-reconstruction has the other way round; ``ic`` tells which it is.

    With as many volumes as components nothing but the file's name tells: a calibrated file has time first.
    """
    courses = _matrix(content, "tc", file)
    components = len(_matrix(content, "ic", file))
    if components not in courses.shape:
        raise AutoSpecError(
            f"{file}: its {components} maps (ic) fit neither side of its time-courses (tc), {courses.shape}"
        )
    if len(courses) != components:
        return courses
    is_square = courses.shape[0] == courses.shape[1]
    return courses if is_square and CALIBRATED.search(file.name) else courses.T


def _maps(content: Struct, source: Source, options: Options) -> npt.NDArray[np.float64]:
    assert source.maps is not None
    if source.maps != source.file:
        return read_image_maps(source.maps)
    mask = find_mask(options)
    assert mask is not None
    return reorder_voxels(_matrix(content, "ic", source.file), mask, source.file)


def _matrix(content: Struct, name: str, file: Path) -> npt.NDArray[np.float64]:
    value = content.get(name)
    if not isinstance(value, np.ndarray) or value.ndim != 2:
        raise AutoSpecError(f"{file}: holds no matrix {name!r}; it has {', '.join(content)}")
    return value.astype(np.float64)
