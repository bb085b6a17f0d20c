"""Opening a spectra file, its kind, schema and structure checked.

Files are whole by rename, so they are read without HDF5's locks: a notebook that holds a file open, for reading or for
writing, keeps nobody from reading it, and a file system without locks will do.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from autospec.errors import AutoSpecError, DamagedFile, UnreadableFile
from autospec.store.checksums import DIGEST, damaged_heap, item_lines, structure_digest
from autospec.store.contents import SPECTRA, Content
from autospec.store.schema import SCHEMA_VERSION
from autospec.store.validation import Validation

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

VERSION = "schema_version"
"""The root attribute of files that other programs read too."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"

RETRY_S = 2.0
"""Seconds to wait for a file that is busy."""
BUSY = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETXTBSY})
ADVICE = {
    errno.EACCES: "ask its owner for permission to read it",
    errno.EPERM: "ask its owner for permission to read it",
    errno.EAGAIN: "another process holds it; close it there and try again",
    errno.EBUSY: "another process holds it; close it there and try again",
    errno.ENOLCK: "the file system has no locks; set HDF5_USE_FILE_LOCKING=FALSE",
    errno.EMFILE: "this process has too many files open; raise `ulimit -n`",
    errno.ENFILE: "this machine has too many files open; try again later",
    errno.EIO: "the disk could not read it; the file itself may be whole, so try again or copy it elsewhere",
    errno.ESTALE: "the network file system has lost it; try again",
}
"""What to do about the errors that say nothing of a file's content."""

_intact: set[tuple[object, ...]] = set()
"""Files whose structure was checked, by place, size and time: a run's file is opened again for every layer."""


@contextlib.contextmanager
def open_checked(path: Path | bytes) -> Iterator[h5py.File]:
    """Open a spectra file for reading, its kind, schema and structure checked.

    Args:
        path: The file, or its bytes.

    Yields:
        The opened file.

    Raises:
        AutoSpecError: The file is missing, or is not one of spectra, or has another schema.
        UnreadableFile: The file cannot be read now, which says nothing of its content.
        DamagedFile: The file was read and found wrong.
    """
    with open_as(path, SPECTRA, "spectra") as file:
        yield file


@contextlib.contextmanager
def open_as(path: Path | bytes, contents: tuple[Content, ...], kind: str) -> Iterator[h5py.File]:
    """Open a file that this program wrote, of spectra or of another kind.

    Args:
        path: The file, or its bytes.
        contents: What it may hold.
        kind: What it is a file of, for messages.

    Yields:
        The opened file.

    Raises:
        AutoSpecError: As ``open_checked``.
        DamagedFile: As ``open_checked``.
    """
    name = "the file" if isinstance(path, bytes) else str(path)
    with _stream(path, name) as stream, _named_errors(name, stream):
        if stream.read(len(SIGNATURE)) != SIGNATURE:
            raise DamagedFile(f"{name} is not an HDF5 file")
        # a stream, not a path: HDF5 would lock the path, and refuse what another process has open for writing
        with h5py.File(stream, "r") as file:
            if any(content.path == f"@{VERSION}" for content in contents):
                _check_version(file, name, kind)
            _check_structure(file, stream, name, contents)
            yield file


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        AutoSpecError: There is no such file.
        UnreadableFile: It cannot be read now, which says nothing of its content.
    """
    with _stream(path, str(path)) as stream, _named_errors(str(path), stream):
        return stream.read()


class _Stream(io.FileIO):
    """A file that remembers why it could not be read: HDF5 does not pass the reason on."""

    error: OSError | None = None

    def readinto(self, buffer: Buffer) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.error = error
            raise


def _stream(path: Path | bytes, name: str) -> io.BytesIO | io.BufferedReader:
    """The file, open for reading; one that is busy is waited for."""
    if isinstance(path, bytes):
        return io.BytesIO(path)
    deadline = time.monotonic() + RETRY_S
    while True:
        try:
            raw = _Stream(path, opener=lambda place, _: os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
            break
        except (FileNotFoundError, NotADirectoryError):
            raise AutoSpecError(f"{name}: no such file") from None
        except IsADirectoryError:
            raise AutoSpecError(f"{name} is a folder, not a file") from None
        except OSError as error:
            if error.errno not in BUSY or time.monotonic() > deadline:
                raise _unreadable(name, error) from error
            time.sleep(RETRY_S / 20)
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):  # a pipe or a device, which would never end
        raw.close()
        raise AutoSpecError(f"{name} is not a regular file")
    return io.BufferedReader(raw)


@contextlib.contextmanager
def _named_errors(name: str, stream: io.BytesIO | io.BufferedReader) -> Iterator[None]:
    """What goes wrong while a file is read, in one line: the system's errors apart from a damaged content."""
    try:
        yield
    except AutoSpecError:
        raise
    except (OSError, LookupError, RuntimeError, MemoryError, ArithmeticError, ValueError, TypeError) as error:
        behind = getattr(getattr(stream, "raw", None), "error", None) or error
        if isinstance(behind, OSError) and _number(behind) in ADVICE:
            raise _unreadable(name, behind) from error
        raise DamagedFile(f"{name} is truncated or damaged and cannot be read") from error


def _unreadable(name: str, error: OSError) -> UnreadableFile:
    number = _number(error)
    reason = os.strerror(number) if number else str(error)
    return UnreadableFile(f"{name} cannot be read now ({reason}): {ADVICE.get(number, 'try again later')}")


def _number(error: OSError) -> int:
    """The system's number of an error, which HDF5 may only mention in its text."""
    mentioned = re.search(r"errno = (\d+)", str(error))
    return error.errno or (int(mentioned[1]) if mentioned else 0)


def _check_version(file: h5py.File, name: str, kind: str) -> None:
    if VERSION not in file.attrs:
        raise AutoSpecError(f"{name} is an HDF5 file, but not of {kind}: it has no schema_version")
    attribute = h5py.h5a.open(file.id, VERSION.encode())
    if attribute.get_type().get_class() != h5py.h5t.INTEGER or attribute.shape != ():
        raise DamagedFile(f"{name}: /@schema_version is not a whole number")
    version = int(np.asarray(file.attrs[VERSION]))
    if version != SCHEMA_VERSION:
        raise AutoSpecError(f"{name} has schema_version {version}; this program reads {SCHEMA_VERSION}")


def _check_structure(
    file: h5py.File, stream: io.BytesIO | io.BufferedReader, name: str, contents: tuple[Content, ...]
) -> None:
    """Hold the file against its description and its own digest, unless that was done since it was written."""
    size, state = _state(stream)
    if state in _intact:
        return
    if (begin := damaged_heap(file, stream)) is not None:
        raise DamagedFile(f"{name} is damaged: its text from byte {begin} on is not what was written")
    recorded = file.attrs.get(DIGEST)  # None in files of earlier versions
    lines = []
    for path, item in Validation(name, contents, size).items(file):
        lines += [] if recorded is None else item_lines(path, item)
    if recorded is not None and structure_digest(lines) != recorded:
        raise DamagedFile(f"{name} is damaged: its names, attributes or texts are not those that were written")
    if state is not None:
        _intact.add(state)


def _state(stream: io.BytesIO | io.BufferedReader) -> tuple[int, tuple[object, ...] | None]:
    """The size of a file, and what changes whenever it is written anew; None for bytes in memory."""
    if isinstance(stream, io.BytesIO):
        return stream.getbuffer().nbytes, None
    status = os.fstat(stream.fileno())
    return status.st_size, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
