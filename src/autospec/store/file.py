"""A recorder's file: where it begins, and when it is written again."""

from __future__ import annotations

import time
from pathlib import Path

from autospec.errors import AutoSpecError
from autospec.store.atomic import remove_leftovers
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.read import Spectra, open_spectra, read_table
from autospec.store.table import SpectraTable
from autospec.store.write import Header, spectra_bytes, write_spectra

WRITE_SHARE = 0.02
"""The largest share of a run's time that writing the file may take."""


class SpectraFile:
    """The arrays and the header of one run, and the file that they are written to.

    ``is_written_here`` says whether this process writes it; of several that train together, one does.

    Args:
        path: the file, or None to keep everything in memory.
        header: what the file says beside its arrays; read again at each writing.
        resume: go on with a file that is there.
        overwrite: lose a file that is there.

    Raises:
        AutoSpecError: for a file that is there without ``resume`` or ``overwrite``, or is of other groups or layers.
    """

    def __init__(self, path: Path | None, header: Header, resume: bool, overwrite: bool) -> None:
        self.path = path
        self.header = header
        self.table = initial_table(path, header, resume, overwrite)
        self.is_written_here = True
        self.earlier_design = _earlier_design(path) if self.table.permutation_epochs else None
        self._last_write = time.monotonic()
        self._cost_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether enough time has gone by since the last writing."""
        return time.monotonic() - self._last_write > max(1.0, self._cost_s / WRITE_SHARE)

    def write(self) -> None:
        """Write the file now.

        Raises:
            AutoSpecError: where the disk refuses, with what stood there before untouched.
        """
        if self.path is None or not self.is_written_here:
            return
        started = time.monotonic()
        write_spectra(self.path, self.table, self.header)
        self._last_write = time.monotonic()
        self._cost_s = self._last_write - started

    def spectra(self) -> Spectra:
        """Return everything so far, labelled; with or without a file."""
        return Spectra(spectra_bytes(self.table, self.header))


def _earlier_design(path: Path | None) -> PermutationDesign | None:
    """What a file that is gone on with says of its permutations."""
    permutations = None if path is None else open_spectra(path).permutations
    return None if permutations is None else permutations.stored_design


def initial_table(path: Path | None, header: Header, resume: bool, overwrite: bool) -> SpectraTable:
    """Return the arrays to append to: empty ones, or those of a file that is gone on with.

    Args:
        path: the file, or None for no file.
        header: what the file will say; a file that is gone on with must have its groups and layers.
        resume: go on with a file that is there.
        overwrite: lose a file that is there.

    Raises:
        AutoSpecError: for a file that is there without ``resume`` or ``overwrite``, or is of other groups or layers.
    """
    if path is None:
        return SpectraTable()
    if not path.parent.is_dir():
        raise AutoSpecError(f"cannot write {path}: there is no folder {path.parent}")
    remove_leftovers(path)
    if not path.exists() or overwrite:
        return SpectraTable()
    if not resume:
        raise AutoSpecError(f"{path} exists; pass resume=True to go on with it or overwrite=True to lose it")
    earlier = open_spectra(path)
    if earlier.group_names != list(header.groups) or earlier.layers != list(header.layers):
        raise AutoSpecError(f"{path} was recorded with other groups or layers and cannot be resumed")
    return read_table(path)
