"""Outputs of the GIFT toolbox: component time-courses and maps as NIfTI, or back-reconstructed in .mat files.

GIFT numbers people by their order in its analysis, and its files hold no ids: a list of ids in that order is asked
for, since a guess would give people one another's diagnoses.
"""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from autospec.datasets.account import Account, named
from autospec.datasets.tables import is_missing
from autospec.errors import AutoSpecError
from autospec.neuroimaging.cohorts.cobre_hdf5 import component_positions
from autospec.neuroimaging.cohorts.matfiles import Struct, read_mat
from autospec.neuroimaging.cohorts.options import Options
from autospec.neuroimaging.cohorts.parts import Part
from autospec.neuroimaging.cohorts.sources import Folder, Source

KINDS = (
    re.compile(r"_sub(?P<person>\d+)_timecourses_ica_s(?P<session>\d+)_\.nii(\.gz)?$"),
    re.compile(r"_ica_c(?P<person>\d+)-(?P<session>\d+)\.mat$"),
    re.compile(r"_ica_br(?P<person>\d+)\w*\.mat$"),
)
"""Names of the files, the kind that is easiest to trust first; a back-reconstruction holds all sessions."""

Array = npt.NDArray[np.float64]


def looks_like(folder: Path) -> bool:
    """Whether a folder holds outputs of GIFT for single people."""
    return any(kind.search(file.name) for file in folder.iterdir() for kind in KINDS)


def found(options: Options, account: Account) -> Folder:
    """One person per number in GIFT's file names, called by the ids of ``--ids``."""
    files = _files(options)
    ids = _ids(options, max(files))
    sources = []
    for number, own in enumerate(ids, start=1):
        if number not in files:
            account.drop(own, f"is number {number} in {options.ids and options.ids.name}, which GIFT has no file of")
            continue
        sources.append(Source(own, files[number], maps=_maps_of(files[number])))
    account.note(f"{options.folder.name}: GIFT outputs of {len(files)} people, session {options.session}")
    return Folder("gift", sources, options.phenotype or options.folder / "participants.tsv", options.columns)


def read(source: Source, options: Options) -> Part:
    """A person's time-courses (T, components), and maps where GIFT's volumes of them are at hand."""
    courses = _timecourses(source.file, options.session)
    maps = None if source.maps is None else _image_maps(source.maps)
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
                raise AutoSpecError(f"{options.folder}: {files[number].name} and {file.name} are both person {number}")
            files[number] = file
        if files:
            return files
    raise AutoSpecError(f"{options.folder}: no output of GIFT for session {options.session}")


def _ids(options: Options, people: int) -> list[str]:
    if options.ids is None:
        raise AutoSpecError(
            "--ids: GIFT numbers people by their order in its analysis; name a text file with their ids in this order, "
            "one per line"
        )
    try:
        lines = [line.strip() for line in options.ids.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise AutoSpecError(f"--ids {options.ids}: cannot be read: {error}") from error
    ids = [line for line in lines if not is_missing(line)]
    if len(ids) < people:
        raise AutoSpecError(f"--ids {options.ids}: {len(ids)} ids, but GIFT's files count {people} people")
    if len(set(ids)) < len(ids):
        raise AutoSpecError(f"--ids {options.ids}: twice: {named(sorted({own for own in ids if ids.count(own) > 1}))}")
    return ids


def _maps_of(timecourses: Path) -> Path | None:
    """The volumes of a person's component maps, beside the time-courses."""
    name = timecourses.name.replace("_timecourses_ica_", "_component_ica_")
    file = timecourses.with_name(name)
    return file if name != timecourses.name and file.is_file() else None


def _timecourses(file: Path, session: int) -> Array:
    courses = _image(file) if file.name.endswith((".nii", ".nii.gz")) else _mat_timecourses(file, session)
    if courses.ndim != 2:
        raise AutoSpecError(f"{file}: time-courses are {courses.shape}, not (time, components)")
    return courses


def _mat_timecourses(file: Path, session: int) -> Array:
    """(time, components): ``tc`` of one session, or one element of ``compSet``, which is (components, time)."""
    content = read_mat(file)
    if "compSet" not in content:
        return _matrix(content, "tc", file)
    sets = content["compSet"]
    if not isinstance(sets, list) or len(sets) < session:
        raise AutoSpecError(f"{file}: compSet holds no session {session}")
    element = sets[session - 1]
    courses, n_maps = _matrix(element, "tc", file), len(_matrix(element, "ic", file))
    return courses.T if courses.shape[0] == n_maps else courses


def _matrix(content: Struct, name: str, file: Path) -> Array:
    value = content.get(name)
    if not isinstance(value, np.ndarray) or value.ndim != 2:
        raise AutoSpecError(f"{file}: holds no matrix {name!r}; it has {', '.join(content)}")
    return value.astype(np.float64)


def _image(file: Path) -> Array:
    try:
        return np.asarray(nibabel.load(file).dataobj, dtype=np.float64)
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise AutoSpecError(f"{file}: is truncated, damaged or no image ({' '.join(str(error).split())})") from error


def _image_maps(file: Path) -> Array:
    """(components, voxels) of a volume (x, y, z, components)."""
    volume = _image(file)
    if volume.ndim != 4:
        raise AutoSpecError(f"{file}: maps are {volume.shape}, not (x, y, z, components)")
    return volume.reshape(-1, volume.shape[3]).T


def grid(sources: list[Source]) -> tuple[tuple[int, ...], Array] | None:
    """(shape, affine) of everybody's maps; None unless all have maps."""
    if not sources or any(source.maps is None for source in sources):
        return None
    images = [(source, nibabel.load(source.maps)) for source in sources]
    first, image = images[0]
    for source, other in images[1:]:
        if other.shape != image.shape or not np.allclose(other.affine, image.affine, atol=1e-3):
            raise AutoSpecError(f"{source.maps}: subject {source.id} has maps on another grid than {first.id}")
    return tuple(image.shape[:3]), np.asarray(image.affine)
