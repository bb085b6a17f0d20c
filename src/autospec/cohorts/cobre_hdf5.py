"""The COBRE time-courses that circulate as one HDF5 table: (157, 100 components × 140 volumes), with CSV files."""

from __future__ import annotations

import csv
import io
import logging
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
from autospec.foreign.files import read_text
from autospec.foreign.hdf5 import open_foreign
from autospec.foreign.process import read_apart

log = logging.getLogger(__name__)

DATASET = "COBRE_dataset"
COMPONENTS = 100
LABELS = {1: "SZ", 2: "HC"}


def recognises(folder: Path) -> bool:
    """Whether a folder holds such a table.

    Args:
        folder: A folder of files.

    Returns:
        True where a file has a dataset ``COBRE_dataset``.
    """
    return bool(_tables(folder))


def find_sources(options: Options, account: Account) -> Folder:
    """The sources of a table: one subject per row; the file has no ids, so that a subject is called by the row, from 1.

    Args:
        options: What the user asks for.
        account: Takes a line for every subject left out.

    Returns:
        The sources, and the subjects with their diagnoses.

    Raises:
        AutoSpecError: There is no such table, or its labels or components do not fit it.
    """
    tables = _tables(options.folder)
    if len(tables) != 1:
        others = ", ".join(path.name for path in _hdf5_files(options.folder))
        raise AutoSpecError(
            f"{options.folder}: {len(tables)} HDF5 files with a table {DATASET} of numbers, where one is needed; "
            f"there are {others or 'none'}"
        )
    shape = read_apart(table_shape, tables[0])
    if len(shape) != 2 or shape[1] % COMPONENTS:
        raise AutoSpecError(f"{tables[0]}: {DATASET} is {shape}, not (subjects, {COMPONENTS} components × volumes)")
    labels = whole_numbers(_one(options.folder, options.labels, "*label*.csv", "--labels"))
    if len(labels) != shape[0]:
        raise AutoSpecError(f"{options.labels or options.folder}: {len(labels)} labels for {shape[0]} subjects")
    unknown = sorted(set(labels) - set(LABELS))
    if unknown:
        raise AutoSpecError(f"{options.labels or options.folder}: label {unknown[0]} is unknown; 1 is SZ, 2 is HC")
    components_to_keep(options)
    ids = [f"row-{row + 1:03d}" for row in range(shape[0])]
    account.note(f"{tables[0].name}: {shape[0]} subjects, no ids: they are named by their rows, from 1")
    subjects = pd.DataFrame({"id": ids, "diagnosis": [LABELS[label] for label in labels]})
    sources = [Source(subject, tables[0], position=row) for row, subject in enumerate(ids)]
    return Folder("hdf5", sources, subjects=subjects)


def read(source: Source, options: Options, with_maps: bool = True) -> Part:
    """Read a subject's time-courses: a row holds one component after the other.

    Args:
        source: The file and the row.
        options: Which components are kept.
        with_maps: Ignored, since there are no maps.

    Returns:
        Time-courses (140, 53).
    """
    courses = read_apart(table_row, source.file, source.position).reshape(COMPONENTS, -1).T
    return Part(courses[:, components_to_keep(options)])


def table_shape(file: Path) -> tuple[int, ...]:
    """The shape of the table in a file, in the process for readers.

    Args:
        file: An HDF5 file.

    Returns:
        Empty where it holds no table of numbers.
    """
    with open_foreign(file) as root:
        table = root.get(DATASET)
        return tuple(table.shape) if isinstance(table, h5py.Dataset) and table.dtype.kind in "fiu" else ()


def table_row(file: Path, row: int) -> npt.NDArray[np.float64]:
    """A row of the table in a file, in the process for readers.

    Args:
        file: An HDF5 file with a table.
        row: Counted from 0.

    Returns:
        (components × volumes,).
    """
    with open_foreign(file) as root:
        return np.asarray(root[DATASET][row], dtype=np.float64)


def components_to_keep(options: Options) -> npt.NDArray[np.int64]:
    """The positions, from 0, of the components that are kept, from a CSV that counts from 1.

    Args:
        options: Names the CSV, or its folder does.

    Returns:
        (components,).

    Raises:
        AutoSpecError: There is no such list, or a number cannot be meant.
    """
    path = _one(options.folder, options.components, "*ind*.csv", "--components")
    return component_positions(path, COMPONENTS)


def component_positions(path: Path, available: int) -> npt.NDArray[np.int64]:
    """Positions from 0 out of a list that counts from 1.

    Args:
        path: A CSV of whole numbers.
        available: How many components there are.

    Returns:
        (components,).

    Raises:
        AutoSpecError: A number occurs twice or is out of range.
    """
    numbers = np.array(whole_numbers(path), dtype=np.int64)
    if numbers.min() < 1 or numbers.max() > available or len(set(numbers.tolist())) < len(numbers):
        raise AutoSpecError(f"{path}: components must be different numbers from 1 to {available}")
    return numbers - 1


def whole_numbers(path: Path) -> list[int]:
    """Every number of a CSV file, row by row; a first row that is text is a header.

    Args:
        path: A CSV file.

    Returns:
        The numbers in order.

    Raises:
        AutoSpecError: The file cannot be read, or holds anything else.
    """
    text = read_text(path)
    try:
        rows = [[cell.strip() for cell in row if cell.strip()] for row in csv.reader(io.StringIO(text, newline=""))]
        rows = [row for row in rows if row]
        if rows and not _is_number(rows[0][0]):
            rows = rows[1:]
        values = [float(cell) for row in rows for cell in row]
    except (csv.Error, ValueError) as error:
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


def _hdf5_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.h5"), *folder.glob("*.hdf5")])


def _tables(folder: Path) -> list[Path]:
    tables = []
    for path in _hdf5_files(folder):
        try:
            if read_apart(table_shape, path):
                tables.append(path)
        except AutoSpecError as error:
            log.warning("%s", error)
    return tables


def _one(folder: Path, given: Path | None, pattern: str, option: str) -> Path:
    files = [given] if given else sorted(folder.glob(pattern))
    if len(files) != 1:
        raise AutoSpecError(f"{folder}: {len(files)} files fit {pattern}; name one with {option}")
    return files[0]
