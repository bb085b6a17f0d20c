"""HDF5 files of others: opened without following links, after a check that they hold what they claim."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py

from autospec.store.contents import FILTERS
from autospec.store.validation import SIMPLE, Validation

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MATLAB_HEADER_BYTES = 512

LZF = 32000
"""A filter of h5py's own."""

_checked: set[tuple[int, ...]] = set()
"""Files that were checked, by place, size and time."""


class ForeignValidation(Validation):
    """The check of a file whose writer we do not know: other types and filters, and chunks that were never written."""

    types = SIMPLE | {h5py.h5t.REFERENCE, h5py.h5t.COMPOUND, h5py.h5t.OPAQUE, h5py.h5t.BITFIELD}
    filters = FILTERS | {4, 5, 6, LZF}
    complete_chunks = False

    def _with_attributes(self, path: str, item: h5py.Group | h5py.Dataset) -> h5py.Group | h5py.Dataset:
        return item  # nobody reads them


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does, perhaps behind MATLAB's header.

    Args:
        path: A regular file.
    """
    with path.open("rb") as stream:
        start = stream.read(MATLAB_HEADER_BYTES + len(SIGNATURE))
    return SIGNATURE in (start[: len(SIGNATURE)], start[MATLAB_HEADER_BYTES:])


@contextlib.contextmanager
def open_foreign(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading, after a check of all that is in it; only in the process for readers.

    Args:
        path: The file.

    Yields:
        The opened file.

    Raises:
        DamagedFile: It links to elsewhere, or claims more than it holds.
    """
    # a stream, not a path: HDF5 would refuse what another process has open for writing
    with path.open("rb") as stream, h5py.File(stream, "r") as file:
        status = path.stat()
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if state not in _checked:
            for _ in ForeignValidation(str(path), (), status.st_size).items(file):
                pass
            _checked.add(state)
        yield file
