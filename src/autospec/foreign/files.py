"""Files of others as bytes and text: only regular files, no larger than can be meant, unpacked with a limit."""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from functools import cache
from pathlib import Path
from typing import BinaryIO

from autospec.errors import AutoSpecError

KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}

MOST_TEXT_BYTES = 2**26
"""No list, sidecar or file of motion is larger than 64 MiB."""

MOST_RATIO = 100
"""A file of numbers or text that unpacks to more than so many times its size is none."""
SMALL_BYTES = 2**26
"""So much may anything unpack to, such as a mask of zeros."""

STEP_BYTES = 2**16
GZIP_WINDOW = 16 + zlib.MAX_WBITS


def file_bytes(path: Path) -> int:
    """Return a file's size, after a check that it is one.

    Args:
        path: The file.

    Raises:
        AutoSpecError: It is not there, cannot be looked at, or is a folder, pipe or device, which would never end.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AutoSpecError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError for a path with a NUL
        raise AutoSpecError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for is_kind, name in KINDS.items():
        if is_kind(status.st_mode):
            raise AutoSpecError(f"{path}: is {name}, not a file")
    return status.st_size


def read_bytes(path: Path, most: int = MOST_TEXT_BYTES) -> bytes:
    """Return what a small file holds.

    Args:
        path: The file.
        most: How many bytes it may have.

    Raises:
        AutoSpecError: It is no file, larger, or cannot be read.
    """
    size = file_bytes(path)
    if size > most:
        raise AutoSpecError(f"{path}: has {size} bytes, more than the {most} that such a file may have")
    try:
        return path.read_bytes()
    except OSError as error:
        raise AutoSpecError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_text(path: Path, errors: str = "strict") -> str:
    """Return what a small file of UTF-8 text holds, without a byte order mark.

    Args:
        path: The file.
        errors: What becomes of bytes that are no text; see ``bytes.decode``.

    Raises:
        AutoSpecError: It is no file, too large, or no text.
    """
    try:
        return read_bytes(path).decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise AutoSpecError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start})") from error


@cache
def check_gzip(path: Path, size: int, modified_ns: int) -> int:
    """Unpack a gzip file to its end, where its checksum stands, which who reads only values never looks at.

    Args:
        path: The file.
        size: Its size, and
        modified_ns: its time: it is looked at again when these change.

    Returns:
        How many bytes come out.

    Raises:
        AutoSpecError: It is truncated or damaged.
    """
    total = 0
    try:
        with gzip.open(path, "rb") as stream:
            while step := stream.read(16 * STEP_BYTES):
                total += len(step)
                check_unpacked(path, total, size)
    except (OSError, EOFError, zlib.error) as error:
        raise AutoSpecError(f"{path}: is truncated or damaged: {error}") from error
    return total


def unpacked(path: Path, most: int) -> BinaryIO:
    """Return the content of a file, unpacked where its name ends in ``.gz``, as a stream in memory.

    Args:
        path: The file.
        most: How many bytes may come out.

    Raises:
        AutoSpecError: It is no file or no gzip, unpacks to more, or to so many times its size that it is no data.
    """
    content = io.BytesIO(read_bytes(path, most))
    if path.suffix != ".gz":
        return content
    try:
        return _unpacked(content, path, most)
    except (zlib.error, EOFError) as error:
        raise AutoSpecError(f"{path}: is truncated or damaged: {error}") from error


def _unpacked(packed: BinaryIO, path: Path, most: int) -> BinaryIO:
    out, taken = io.BytesIO(), 0
    part = zlib.decompressobj(GZIP_WINDOW)
    step = b""
    while step := step or packed.read(STEP_BYTES):
        if part.eof:  # another member of the file follows, or zeros, as gzip allows
            step = step.lstrip(b"\0")
            if not step:
                continue
            part = zlib.decompressobj(GZIP_WINDOW)
        taken += len(step)
        out.write(part.decompress(step))
        step = part.unused_data
        taken -= len(step)
        check_unpacked(path, out.tell(), taken, most)
    if not part.eof:
        raise EOFError("it ends before its end was written")
    out.seek(0)
    return out


def check_unpacked(path: Path | str, claimed: int, packed: int, most: int | None = None) -> None:
    """Refuse what unpacks, or claims to unpack, to more than can be meant.

    Args:
        path: The file, for the message.
        claimed: The bytes that come out.
        packed: The bytes that go in.
        most: How many may come out whatever goes in.

    Raises:
        AutoSpecError: It is too much.
    """
    if claimed > SMALL_BYTES and claimed > MOST_RATIO * packed:
        raise AutoSpecError(
            f"{path}: unpacks to {claimed} bytes or more from {packed}, over {MOST_RATIO} times as many: no such data "
            "are so alike"
        )
    if most is not None and claimed > most:
        raise AutoSpecError(f"{path}: unpacks to more than the {most} bytes that such a file may have")


def check_claim(path: Path | str, claimed: int, stored: int, is_packed: bool) -> None:
    """Refuse a header that claims more than its file can hold, before anything is allocated for it.

    Args:
        path: The file, for the message.
        claimed: The bytes that the header claims.
        stored: The size of the file.
        is_packed: Whether it is compressed.

    Raises:
        AutoSpecError: It claims too much.
    """
    if is_packed:
        check_unpacked(path, claimed, stored)
    elif claimed > stored:
        raise AutoSpecError(
            f"{path}: is truncated or damaged: its header claims {claimed} bytes, and the file has {stored}"
        )
