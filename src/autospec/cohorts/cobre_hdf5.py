"""The COBRE time-courses that circulate as one HDF5 table: (157, 100 components × 140 volumes), with CSV files."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account
from autospec.cohorts.options import Options
from autospec.cohorts.source_files import Folder, Source
from autospec.cohorts.subject_file import Part
from autospec.errors import AutoSpecError

DATASET = "COBRE_dataset"
COMPONENTS = 100
LABELS = {1: "SZ", 2: "HC"}


def recognises(folder: Path) -> bool:
    """Whether a folder holds such a table."""
    return bool(_tables(folder))


def find_sources(options: Options, account: Account) -> Folder:
    """One person per row; the file has no ids, so that a person is called by the row, from 1."""
    tables = _tables(options.folder)
    if len(tables) != 1:
        raise AutoSpecError(f"{options.folder}: {len(tables)} HDF5 files with a dataset {DATASET}; one is needed")
    with h5py.File(tables[0], "r") as file:
        shape = file[DATASET].shape
    if len(shape) != 2 or shape[1] % COMPONENTS:
        raise AutoSpecError(f"{tables[0]}: {DATASET} is {shape}, not (people, {COMPONENTS} components × volumes)")
    labels = whole_numbers(_one(options.folder, options.labels, "*label*.csv", "--labels"))
    if len(labels) != shape[0]:
        raise AutoSpecError(f"{options.labels or options.folder}: {len(labels)} labels for {shape[0]} people")
    unknown = sorted(set(labels) - set(LABELS))
    if unknown:
        raise AutoSpecError(f"{options.labels or options.folder}: label {unknown[0]} is unknown; 1 is SZ, 2 is HC")
    components_to_keep(options)
    ids = [f"row-{row + 1:03d}" for row in range(shape[0])]
    account.note(f"{tables[0].name}: {shape[0]} people, no ids: they are named by their rows, from 1")
    subjects = pd.DataFrame({"id": ids, "diagnosis": [LABELS[label] for label in labels]})
    sources = [Source(own, tables[0], position=row) for row, own in enumerate(ids)]
    return Folder("hdf5", sources, subjects=subjects)


def read(source: Source, options: Options, with_maps: bool = True) -> Part:
    """A person's time-courses (140, 53): a row holds one component after the other."""
    with h5py.File(source.file, "r") as file:
        row = np.asarray(file[DATASET][source.position], dtype=np.float64)
    courses = row.reshape(COMPONENTS, -1).T
    return Part(courses[:, components_to_keep(options)])


def components_to_keep(options: Options) -> npt.NDArray[np.int64]:
    """The positions, from 0, of the components that are kept, from a CSV that counts from 1."""
    path = _one(options.folder, options.components, "*ind*.csv", "--components")
    return component_positions(path, COMPONENTS)


def component_positions(path: Path, available: int) -> npt.NDArray[np.int64]:
    """Positions from 0 out of a list that counts from 1; AutoSpecError for one that cannot be meant."""
    numbers = np.array(whole_numbers(path), dtype=np.int64)
    if numbers.min() < 1 or numbers.max() > available or len(set(numbers.tolist())) < len(numbers):
        raise AutoSpecError(f"{path}: components must be different numbers from 1 to {available}")
    return numbers - 1


def whole_numbers(path: Path) -> list[int]:
    """Every number of a CSV file, row by row; a first row that is text is a header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row if cell.strip()] for row in csv.reader(file)]
        rows = [row for row in rows if row]
        if rows and not _is_number(rows[0][0]):
            rows = rows[1:]
        values = [float(cell) for row in rows for cell in row]
    except (OSError, ValueError) as error:
        raise AutoSpecError(f"{path}: cannot be read as a list of numbers: {error}") from error
    if not values or any(not math.isfinite(value) or value != int(value) for value in values):
        raise AutoSpecError(f"{path}: must hold whole numbers")
    return [int(value) for value in values]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _tables(folder: Path) -> list[Path]:
    found = []
    for path in sorted([*folder.glob("*.h5"), *folder.glob("*.hdf5")]):
        try:
            with h5py.File(path, "r") as file:
                if DATASET in file:
                    found.append(path)
        except OSError:
            continue
    return found


def _one(folder: Path, given: Path | None, pattern: str, option: str) -> Path:
    files = [given] if given else sorted(folder.glob(pattern))
    if len(files) != 1:
        raise AutoSpecError(f"{folder}: {len(files)} files fit {pattern}; name one with {option}")
    return files[0]
