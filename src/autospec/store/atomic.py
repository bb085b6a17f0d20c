"""Files that are written whole or not at all, through a temporary name and a rename."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from autospec.errors import AutoSpecError


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of ``path`` when the block ends without an error.

    After the block the new content is on the disk under its final name, also if the machine loses power right then.
    If the block raises, ``path`` is as it was before.

    Args:
        path: the file to write or replace; its folder must exist.

    Yields:
        A path in the same folder, to which the block writes the whole content.

    Raises:
        AutoSpecError: where the disk refuses; names the file and the reason.
    """
    # kept by hand: a package for it would be a dependency of every user, for these few lines
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder, and need not
            _sync(path.parent)  # the rename is an entry of the folder, which reaches the disk on its own
    except OSError as error:
        reason = error.strerror or str(error)
        raise AutoSpecError(f"cannot write {path}: {reason}; what stood there before is untouched") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of ``path`` whose writers were killed before they could rename them."""
    for leftover in path.parent.glob(f".{path.name}.????????"):
        leftover.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
