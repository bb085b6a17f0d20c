"""Prepared cohorts: one HDF5 file with the data, the subjects and where they come from.

========================  ==================  =========================================================
path                      shape               content
========================  ==================  =========================================================
root attributes                               ``schema_version``, ``simulated``, ``source``, ``settings`` (JSON)
``/people/id``            (n,) text           one id per subject
``/people/<column>``      (n,)                a phenotype column: text, or numbers with NaN for missing
``/timecourses``          (n, time, 53)       time-courses of the components
``/map_maximum``          (n, x, y, z)        the maximum over the components' maps
``/maps``                 (n, 53, voxels)     the maps themselves, in the voxels of the mask
``/mask``                 (x, y, z)           where the maps have values; voxels count with z fastest
``/affine``               (4, 4)              voxel indices to mm, of both kinds of maps
``/template_match``       (n, 53)             correlation of each subject's map with the template's
``/template``             (53, voxels)        the template's maps in the voxels of the mask
``/account``              (lines,) text       who was found, joined and left out when the cohort was prepared
========================  ==================  =========================================================

A file holds what was prepared; only ``/people/id`` is always there. Text is text: nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.phenotype import NUMERIC
from autospec.cohorts.tables import parse_number
from autospec.errors import AutoSpecError
from autospec.foreign.process import read_apart
from autospec.store.atomic import remove_leftovers, write_atomically
from autospec.store.checksums import CHECKED, FORMAT, fixed_text, seal, write_digest
from autospec.store.contents import COHORT
from autospec.store.opening import open_as

SCHEMA_VERSION = 1
PREPARED_FILE = "cohort.h5"
"""What a prepared cohort is called where ``dataset.path`` is a folder."""


@dataclass(frozen=True)
class Prepared:
    """What a prepared cohort says of one kind of data; ``people`` has our column names and a ``row``."""

    subjects: pd.DataFrame
    data: npt.NDArray
    affine: npt.NDArray[np.float64] | None
    source: str
    simulated: bool


@dataclass(frozen=True)
class Rows:
    """An array (n, ...) that is written one subject at a time: ``row(i)`` is the i-th subject's."""

    shape: tuple[int, ...]
    row: Callable[[int], npt.NDArray]


@dataclass(frozen=True)
class Origin:
    """Where the data of a prepared cohort come from: in words, how they were prepared, and who was left out."""

    source: str
    simulated: bool = False
    settings: str = "{}"
    account: Sequence[str] = field(default_factory=tuple)


def find_prepared(path: Path) -> Path:
    """The file that ``dataset.path`` means: itself, or the prepared cohort in that folder.

    Args:
        path: A file, or a folder with ``cohort.h5``.

    Returns:
        The file.

    Raises:
        AutoSpecError: There is none.
    """
    file = path / PREPARED_FILE if path.is_dir() else path
    if not file.is_file():
        raise AutoSpecError(f"dataset.path={path}: there is no prepared cohort {file}")
    return file


def is_prepared(file: Path) -> bool:
    """Whether a file is a prepared cohort of any version, so that a new one may take its place.

    Args:
        file: Any file.

    Returns:
        True for a prepared cohort.
    """
    try:
        return read_apart(has_people, file)
    except AutoSpecError:
        return False


def has_people(file: Path) -> bool:
    """``is_prepared`` in this process, which a damaged file may kill.

    Args:
        file: Any file.

    Returns:
        True for a prepared cohort.
    """
    with file.open("rb") as stream, h5py.File(stream, "r") as root:
        return "schema_version" in root.attrs and "people" in root


def open_prepared(file: Path) -> contextlib.AbstractContextManager[h5py.File]:
    """A context in which a prepared cohort is open for reading, its version and structure checked.

    Args:
        file: The prepared cohort.

    Returns:
        The context. AutoSpecError where the file cannot be read or is no prepared cohort, also in its block.
    """
    return open_as(file, COHORT, "a prepared cohort")


def read_prepared(file: Path, name: str) -> Prepared:
    """Read one kind of data of a prepared cohort and its subjects.

    Args:
        file: The prepared cohort.
        name: A dataset, such as ``timecourses``.

    Returns:
        The data, the subjects and where they come from.

    Raises:
        AutoSpecError: Names what is wrong with the file.
    """
    with open_prepared(file) as root:
        data = _data(root, name, file)
        return Prepared(
            subjects=_subjects(root, len(data), file),
            data=data,
            affine=root["affine"][:] if "affine" in root else None,
            source=str(root.attrs.get("source", file.name)),
            simulated=bool(root.attrs.get("simulated", False)),
        )


def write_prepared(
    file: Path, subjects: pd.DataFrame, data: Mapping[str, npt.NDArray | Rows], source: str, simulated: bool = False
) -> None:
    """``write_cohort`` of data with nothing to say about their origin but a few words.

    Args:
        file: Where to write.
        subjects: A phenotype table with ``id``.
        data: Arrays (n, ...) by dataset name.
        source: Where the data come from, in a few words.
        simulated: Whether they are simulated.
    """
    write_cohort(file, subjects, data, Origin(source, simulated))


def write_cohort(file: Path, subjects: pd.DataFrame, data: Mapping[str, npt.NDArray | Rows], origin: Origin) -> None:
    """Write a prepared cohort whole or not at all: under another name first, then renamed.

    The same subjects and data give the same bytes: nothing in the file tells when or where it was written.

    Args:
        file: Where to write.
        subjects: A phenotype table with ``id``.
        data: Arrays (n, ...) by dataset name.
        origin: Where they come from.

    Raises:
        AutoSpecError: The file cannot be written.
    """
    remove_leftovers(file)
    with write_atomically(file) as temporary:
        with h5py.File(temporary, "w", libver=FORMAT) as root:
            root.attrs.update(
                schema_version=SCHEMA_VERSION,
                simulated=origin.simulated,
                source=origin.source,
                settings=origin.settings,
            )
            for column in subjects.columns:
                _write_column(root, f"people/{_written(column)}", subjects[column])
            for name, values in data.items():
                _write_data(root, name, values)
            if origin.account:
                _write_array(root, "account", fixed_text(origin.account))
            write_digest(root)
        seal(temporary)


def _written(column: str) -> str:
    """A column's name as one level of an HDF5 path; a table may well have a column without a name."""
    return column.replace("/", "_").strip(".") or "unnamed"


def _write_column(root: Any, path: str, column: pd.Series) -> None:
    if pd.api.types.is_numeric_dtype(column):
        _write_array(root, path, column.to_numpy(dtype=np.float64))
    else:
        _write_array(root, path, fixed_text([str(text) for text in column]))


def _write_data(root: Any, name: str, values: npt.NDArray | Rows) -> None:
    if not isinstance(values, Rows):
        _write_array(root, name, values)
        return
    data = root.create_dataset(name, values.shape, dtype=np.float32, chunks=(1, *values.shape[1:]), **CHECKED)
    for index in range(values.shape[0]):
        data[index] = values.row(index)


def _write_array(root: Any, path: str, values: npt.NDArray) -> None:
    """Write a dataset with a checksum; data of subjects are packed too. An empty one has nothing to be checked."""
    packed = {"compression_opts": 4} if values.ndim > 2 else {}
    root.create_dataset(path, data=values, **({**CHECKED, **packed} if values.size else {}))


def _data(root: Any, name: str, file: Path) -> npt.NDArray:
    if name not in root:
        raise AutoSpecError(f"{file}: has no /{name}; it holds {', '.join('/' + key for key in root)}")
    values: npt.NDArray = root[name][:]
    return values


def _subjects(root: Any, length: int, file: Path) -> pd.DataFrame:
    columns = {name: _column(name, node) for name, node in root["people"].items()}
    if "id" not in columns:
        raise AutoSpecError(f"{file}: has no /people/id")
    return pd.DataFrame({**columns, "row": np.arange(length)})


def _column(name: str, node: Any) -> list[str] | list[float]:
    """A phenotype column: numbers for a covariate, text for a label, which may be coded as a number."""
    is_text = h5py.check_string_dtype(node.dtype) is not None
    values = [str(text) for text in node.asstr()[:]] if is_text else [_text(value) for value in node[:].tolist()]
    if name not in NUMERIC:
        return values
    return [np.nan if (value := parse_number(text)) is None else value for text in values]


def _text(value: float) -> str:
    """A number to its last digit, a whole one without a point: an id that is kept as a number stays itself."""
    return str(int(value)) if float(value).is_integer() else str(value)
