"""The digest of a file's structure: what its checksums of values (fletcher32) leave out.

It covers every path, shape and type, every attribute, and text: HDF5 keeps text apart from the datasets that point to
it, where no checksum of its own reaches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

DIGEST = "structure_digest"
"""The root attribute that holds it. Files of earlier versions have none."""

FORMAT = ("v110", "v110")
"""HDF5 1.10 and later: of this format HDF5 itself checks all that leads to the values."""


def structure_digest(items: Iterable[tuple[str, h5py.Group | h5py.Dataset]]) -> str:
    """Return the digest of a file's structure.

    Args:
        items: Every folder and dataset with its path, the root's empty.

    Returns:
        Hexadecimal digits.
    """
    lines = sorted(line for path, item in items for line in _lines(path, item))
    return hashlib.sha256("\n".join(lines).encode("utf-8", "backslashreplace")).hexdigest()


def write_digest(file: h5py.File) -> None:
    """Write the digest of a file's structure into it, when all else is written.

    Args:
        file: The file, open for writing.
    """
    items: list[tuple[str, h5py.Group | h5py.Dataset]] = [("", file)]
    file.visititems(lambda path, item: items.append((path, item)))
    file.attrs[DIGEST] = structure_digest(items)


def _lines(path: str, item: h5py.Group | h5py.Dataset) -> list[str]:
    lines = [
        f"{path}@{name}={_plain(value)}"
        for name, value in item.attrs.items()
        if name not in (DIGEST, "DIMENSION_LIST", "REFERENCE_LIST")
    ]
    if not isinstance(item, h5py.Dataset):
        return [*lines, f"{path}/"]
    text = _plain(item[()]) if item.dtype.kind in "SO" else ""
    return [*lines, f"{path} {item.shape} {item.dtype.str} {text}"]


def _plain(value: Any) -> str:
    """A value in one way of writing, whatever type it was read as."""
    return json.dumps(np.asarray(value).tolist(), default=lambda raw: raw.decode("utf-8", "backslashreplace"))
