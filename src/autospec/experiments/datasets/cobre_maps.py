"""One spatial map per subject: NIfTI files with their participants, a prepared cohort, or a simulated one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account
from autospec.cohorts.phenotype import join_by_id, keep_complete
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
from autospec.experiments.datasets.volumes import check_resolution, read_maps, resample

SIMULATION = "cobre_maps 1"
"""Raised when the same configuration gives other numbers."""

PARTICIPANTS = "participants.tsv"
MAPS = "maps/sub-*_map.nii.gz"

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
    files = sorted(folder.glob(MAPS))
    if not files:
        raise AutoSpecError(f"dataset.path={folder}: there is no {MAPS}")
    return [folder / PARTICIPANTS, *files]


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
        subjects, maps, source, simulated = _prepared(files[0], config, account)
    else:
        subjects, maps = _folder(files[0], files[1:], config, account)
        source, simulated = f"maps of {files[0].parent.name}", False
    cohort = build_cohort(subjects, config, account)
    account.log(log)
    return build_dataset(cohort, maps[cohort.row][:, None], config, account, source, simulated)


def _folder(
    participants: Path, files: list[Path], config: CobreMapsConfig, account: Account
) -> tuple[pd.DataFrame, npt.NDArray[np.float32]]:
    """The subjects of a folder and their maps; ``row`` indexes the maps that could be read."""
    ids = [file.name.removesuffix("_map.nii.gz") for file in files]
    subjects = join_by_id(read_participants(participants, config, account), ids, account, "maps")
    maps, readable = read_maps(
        [files[row] for row in subjects["row"]], list(subjects["id"]), config.resolution_mm, account
    )
    if config.resolution_mm is not None:
        _note_resolution(maps, config.resolution_mm, account)
    subjects = subjects[readable].reset_index(drop=True)
    subjects = subjects.assign(row=np.arange(len(subjects)))
    return keep_complete(subjects, maps, account, "its map"), maps


def _prepared(
    file: Path, config: CobreMapsConfig, account: Account
) -> tuple[pd.DataFrame, npt.NDArray[np.float32], str, bool]:
    prepared = read_prepared(file, "map_maximum")
    subjects = join_by_id(prepared.subjects, list(prepared.subjects["id"]), account, file.name)
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
