"""A recorder's file: where it begins, and when it is written again."""

from __future__ import annotations

import os
import time
from pathlib import Path

from autospec.errors import AutoSpecError
from autospec.store.atomic import remove_leftovers
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.read import Spectra, open_spectra
from autospec.store.schema import ESCAPED_SLASH, USES, is_text
from autospec.store.table import SpectraTable, read_table
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
        check_header(header)
        self.table, self.earlier_design = _go_on_with(_find_earlier(path, resume, overwrite), header)
        self._ours = _identity(path)
        self.is_written_here = True
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
        if _identity(self.path) not in (None, self._ours):
            raise AutoSpecError(self._written_beside())
        write_spectra(self.path, self.table, self.header)
        self._ours = _identity(self.path)
        self._last_write = time.monotonic()
        self._cost_s = self._last_write - started

    def _written_beside(self) -> str:
        """Write under another name, since someone else has written the file; returns the message that says so."""
        assert self.path is not None
        beside = self.path.with_name(f"{self.path.stem}.{os.getpid()}-{id(self):x}{self.path.suffix}")
        write_spectra(beside, self.table, self.header)
        return (
            f"{self.path} has been written by another recorder or program meanwhile and is left as it is; what this "
            f"one recorded is in {beside}"
        )

    def spectra(self) -> Spectra:
        """Return everything so far, labelled; with or without a file."""
        return Spectra(spectra_bytes(self.table, self.header))


def _find_earlier(path: Path | None, resume: bool, overwrite: bool) -> Path | None:
    """The file that is gone on with, None where a new one begins; AutoSpecError where neither is asked for."""
    if path is None:
        return None
    if not path.parent.is_dir():
        raise AutoSpecError(f"cannot write {path}: there is no folder {path.parent}")
    remove_leftovers(path)
    if not path.exists() or overwrite:
        return None
    if not resume:
        raise AutoSpecError(f"{path} exists; pass resume=True to go on with it or overwrite=True to lose it")
    return path


def _go_on_with(path: Path | None, header: Header) -> tuple[SpectraTable, PermutationDesign | None]:
    """The arrays to append to, and the design of the permutations in them; AutoSpecError for another recording's."""
    if path is None:
        return SpectraTable(), None
    earlier = open_spectra(path)
    if difference := _difference(earlier, header):
        raise AutoSpecError(f"{path} was recorded with other groups or layers and cannot be resumed: {difference}")
    table = read_table(path)
    permutations = earlier.permutations if table.permutation_epochs else None
    return table, None if permutations is None else permutations.stored_design


def check_header(header: Header) -> None:
    """Refuse what no file can hold, before a run is trained.

    Args:
        header: what the file will say.

    Raises:
        AutoSpecError: names the layer, or says what is wrong.
    """
    for name in header.layers:
        if not is_text(name) or "\0" in name or ESCAPED_SLASH in name or USES in name:
            raise AutoSpecError(f"layer {name!r} has a name that no file can hold: rename its module")
    try:
        spectra_bytes((), header)
    except (TypeError, ValueError, OSError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise AutoSpecError(
            f"attributes: must be text, numbers or arrays of them, which a file can hold ({reason})"
        ) from error


def _difference(earlier: Spectra, header: Header) -> str:
    """The first thing in which a file is not of these groups and layers, in words; empty where it is."""
    if earlier.group_names != list(header.groups):
        return f"groups were {', '.join(earlier.group_names)}, now {', '.join(header.groups)}"
    for margin, parts in header.margins.items():
        if earlier.members[margin] != set(parts):
            return f"margin {margin!r} was of {', '.join(sorted(earlier.members[margin]))}, now {', '.join(parts)}"
    if earlier.layers != list(header.layers):
        return f"layers were {', '.join(earlier.layers)}, now {', '.join(header.layers)}"
    for name, shape in earlier.shapes.items():
        now = tuple(header.layers[name].get("shape", shape))
        if shape and shape != now:
            return f"layer {name!r} was {' × '.join(map(str, shape))}, now {' × '.join(map(str, now))}"
    return ""


def _identity(path: Path | None) -> tuple[int, ...] | None:
    """What tells a file from one that has taken its place; None where there is none."""
    try:
        status = None if path is None else path.stat()
    except OSError:
        return None
    # the time too, since the number of a file that is gone is given to another
    return None if status is None else (status.st_dev, status.st_ino, status.st_mtime_ns)
