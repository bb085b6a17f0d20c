"""The content of source files as a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from autospec.errors import AutoSpecError
from autospec.foreign.files import file_bytes


def digest(sources: Sequence[Path], simulation: str = "") -> str:
    """One digest of the content of all files, in order, and of the version of a simulation.

    Args:
        sources: The files, in order.
        simulation: The version of the simulation, where there is no file.

    Returns:
        Sixteen hexadecimal digits.

    Raises:
        AutoSpecError: A file cannot be read.
    """
    total = hashlib.sha256(simulation.encode())
    for path in sources:
        try:
            file_bytes(path)  # a pipe would never end
            status = path.stat()
        except OSError as error:
            raise AutoSpecError(f"cannot read {path}: {error.strerror}") from error
        total.update(_content(path, status.st_size, status.st_mtime_ns).encode())
    return total.hexdigest()[:16]


@cache
def _content(path: Path, size: int, modified_ns: int) -> str:
    """The digest of one file, read again only when its size or time has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
