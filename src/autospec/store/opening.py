"""Opening a spectra file, its kind and schema checked."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import h5py

from autospec.errors import AutoSpecError, DamagedFile
from autospec.store.schema import SCHEMA_VERSION


@contextlib.contextmanager
def open_checked(path: Path | bytes) -> Iterator[h5py.File]:
    """Open a spectra file for reading, its kind and schema checked.

    Args:
        path: The file, or its bytes.

    Yields:
        The opened file.

    Raises:
        AutoSpecError: The file is missing, or is not one of spectra, or has another schema.
        DamagedFile: The file cannot be read.
    """
    name = "the file" if isinstance(path, bytes) else str(path)
    if isinstance(path, Path) and not path.is_file():
        raise AutoSpecError(f"{name}: no such file")
    if isinstance(path, Path) and not h5py.is_hdf5(path):
        raise DamagedFile(f"{name} is not an HDF5 file")
    try:
        with h5py.File(io.BytesIO(path) if isinstance(path, bytes) else path, "r") as file:
            version = file.attrs.get("schema_version")
            if version is None:
                raise AutoSpecError(f"{name} is an HDF5 file, but not of spectra: it has no schema_version")
            if version != SCHEMA_VERSION:
                raise AutoSpecError(f"{name} has schema_version {version}; this program reads {SCHEMA_VERSION}")
            yield file
    except AutoSpecError:
        raise
    except (OSError, KeyError, RuntimeError) as error:
        raise DamagedFile(f"{name} is truncated or damaged and cannot be read") from error
