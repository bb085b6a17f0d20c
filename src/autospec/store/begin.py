"""Where a recorder's file begins: empty, or where an earlier one ended."""

from __future__ import annotations

from pathlib import Path

from autospec.errors import AutoSpecError
from autospec.store.read import open_spectra, read_table
from autospec.store.table import SpectraTable
from autospec.store.write import Header, remove_leftovers


def begun_table(path: Path | None, header: Header, resume: bool, overwrite: bool) -> SpectraTable:
    """The arrays to append to; AutoSpecError for a file that exists, unless it may be gone on with or lost."""
    if path is None:
        return SpectraTable()
    if not path.parent.is_dir():
        raise AutoSpecError(f"cannot write {path}: there is no folder {path.parent}")
    remove_leftovers(path)
    if not path.exists() or overwrite:
        return SpectraTable()
    if not resume:
        raise AutoSpecError(f"{path} exists; pass resume=True to go on with it or overwrite=True to lose it")
    found = open_spectra(path)
    if found.group_names != list(header.groups) or found.layers != list(header.layers):
        raise AutoSpecError(f"{path} was recorded with other groups or layers and cannot be resumed")
    return read_table(path)
