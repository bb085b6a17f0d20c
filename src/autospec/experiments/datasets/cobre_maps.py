"""One spatial map per subject: NIfTI files with their participants, a prepared cohort, or a simulated one."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account
from autospec.cohorts.levels import levels_file, levels_of
from autospec.cohorts.phenotype import keep_complete
from autospec.cohorts.prepared_file import find_prepared, read_prepared
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CobreMapsConfig
from autospec.experiments.datasets.cohort import (
    build_cohort,
    build_dataset,
    check_cohort,
    read_participants,
    refuse_columns,
)
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.datasets.simulation.maps import effects, simulate_maps
from autospec.experiments.datasets.simulation.subjects import check_subjects, generators, simulate_subjects
from autospec.experiments.datasets.visits import join_visits, visit_ids
from autospec.experiments.datasets.volumes import check_resolution, read_maps, resample

SIMULATION = "cobre_maps 1"
"""Raised when the same configuration gives other numbers."""

PARTICIPANTS = "participants.tsv"
MAPS = ("maps/sub-*_map.nii*", "maps/sub-*_statmap.nii*", "sub-*/**/sub-*_statmap.nii*")
"""Where a folder's maps lie, one of each subject (and session): one's own, or HALFpipe's; the first kind that is there
is read."""

KINDS = re.compile(r"_(stat)?map\.nii(\.gz)?$")

log = logging.getLogger(__name__)


def sources(config: CobreMapsConfig) -> list[Path]:
    """The participants and maps of a folder, or the prepared cohort; no file where the cohort is simulated.

    Args:
        config: The data set's configuration.

    Returns:
        The files in a fixed order.

    Raises:
        AutoSpecError: A file is not there, or keys contradict each other.
    """
    if config.path is None:
        return []
    folder = Path(config.path)
    if not (folder / PARTICIPANTS).is_file():
        return [find_prepared(folder)]
    files = next((maps for pattern in MAPS if (maps := sorted(folder.glob(pattern)))), [])
    if not files:
        raise AutoSpecError(f"dataset.path={folder}: there is no {' or '.join(MAPS)}")
    participants = folder / PARTICIPANTS
    described = {config.target, *config.group_by} & set(levels_of(participants, config.columns))
    # the table of subjects comes first: ``load`` reads it there
    return [participants, *files, *([levels_file(participants)] if described else [])]


def check(config: CobreMapsConfig) -> None:
    """Refuse a value that the maps cannot have.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    check_cohort(config)
    check_resolution(config.resolution_mm)
    if config.path is None or not (Path(config.path) / PARTICIPANTS).is_file():
        refuse_columns(config, None if config.path is None else "dataset.path")
    if config.path is None:
        check_subjects(config)
        effects(config)


def load(config: CobreMapsConfig) -> Dataset:
    """Load the map of every subject with a phenotype and a readable map.

    Args:
        config: The data set's configuration.

    Returns:
        Maps (n, 1, x, y, z).

    Raises:
        AutoSpecError: Names the file or key at fault.
    """
    check(config)
    account = Account()
    files = sources(config)
    if not files:
        who, what = generators(config, 2)
        simulation = simulate_subjects(config, who)
        account.note(f"simulated: {len(simulation)} subjects, effect {config.effect:g}")
        subjects, maps = simulation.table, simulate_maps(config, simulation, what)
        source, simulated = "simulated maps of 53 NeuroMark components", True
    elif len(files) == 1:
        subjects, maps, source, simulated = _read_prepared(files[0], config, account)
    else:
        subjects, maps = _folder(files[0], [file for file in files[1:] if file.suffix != ".json"], config, account)
        source, simulated = f"maps of {files[0].parent.name}", False
    cohort = build_cohort(subjects, config, account)
    account.log(log)
    return build_dataset(cohort, maps[cohort.row][:, None], config, account, source, simulated)


def _folder(
    participants: Path, files: list[Path], config: CobreMapsConfig, account: Account
) -> tuple[pd.DataFrame, npt.NDArray[np.float32]]:
    """The subjects of a folder and their maps; ``row`` indexes the maps that could be read."""
    names = [KINDS.sub("", file.name) for file in files]
    subjects, visits = join_visits(
        read_participants(participants, config, account), [_id_of(name) for name in names], config, account, "maps"
    )
    wanted = [(row, place) for row in subjects["row"] for place in visits[row].rows]
    owners = [
        str(subject) for subject, row in zip(subjects["id"], subjects["row"], strict=True) for _ in visits[row].rows
    ]
    maps, readable = read_maps([files[place] for _, place in wanted], owners, config.resolution_mm, account)
    if config.resolution_mm is not None:
        _note_resolution(maps, config.resolution_mm, account)
    rows = np.array([row for row, _ in wanted])[readable]
    kept = [row for row in subjects["row"] if (rows == row).any()]
    averaged = np.stack([maps[rows == row].mean(axis=0) if (rows == row).sum() > 1 else maps[rows == row][0]
                         for row in kept])  # fmt: skip
    subjects = subjects[subjects["row"].isin(kept)].reset_index(drop=True).assign(row=np.arange(len(kept)))
    return keep_complete(subjects, averaged, account, "its map"), averaged


def _id_of(name: str) -> str:
    """The subject, and the session where the name has one, of a BIDS name; other names as they are."""
    match = re.match(r"(sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)(?:_|$)", name)
    return name if match is None else match.group(1)


def _read_prepared(
    file: Path, config: CobreMapsConfig, account: Account
) -> tuple[pd.DataFrame, npt.NDArray[np.float32], str, bool]:
    prepared = read_prepared(file, "map_maximum")
    if config.session == "average":
        raise AutoSpecError("dataset.session=average: of a prepared cohort, choose a session")
    subjects, visits = join_visits(prepared.subjects, visit_ids(prepared.subjects), config, account, file.name)
    subjects = subjects.assign(row=[visits[row].rows[0] for row in subjects["row"]])
    subjects = keep_complete(subjects, prepared.data, account, file.name)
    maps = prepared.data.astype(np.float32)
    if config.resolution_mm is not None:
        if prepared.affine is None:
            raise AutoSpecError(f"dataset.resolution_mm={config.resolution_mm}: {file} has no /affine to resample by")
        maps = np.stack([resample(one, prepared.affine, config.resolution_mm) for one in maps])
        _note_resolution(maps, config.resolution_mm, account)
    return subjects, maps, prepared.source, prepared.simulated


def _note_resolution(maps: npt.NDArray, resolution_mm: int, account: Account) -> None:
    shape = " × ".join(map(str, maps.shape[1:]))
    account.note(f"maps are resampled to {shape} voxels of {resolution_mm} mm: dataset.resolution_mm")
