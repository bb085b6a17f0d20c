"""The digests of files of an earlier version, which still tell their damage; ``seal`` took their place.

Each of their datasets has HDF5's fletcher32, and gzip's Adler-32. The digest of the structure covers every path, shape
and type, every attribute, and text. HDF5 keeps text of attributes in heaps without a checksum, and hangs or crashes on
a damaged one: a third attribute, of numbers alone, holds their checksums, and is looked at before any text.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from autospec.store.items import LABELS

DIGEST = "structure_digest"
"""The root attribute that holds it. Files of yet earlier versions have none, nor what follows."""

HEAPS = "text_checksums"
"""The root attribute (n, 3) of the heaps of text: where each begins, its bytes, its CRC-32."""


def structure_digest(lines: Iterable[str]) -> str:
    """Return the digest of a file's structure.

    Args:
        lines: What ``item_lines`` says of every folder and dataset, in any order.

    Returns:
        Hexadecimal digits.
    """
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "backslashreplace")).hexdigest()


def damaged_heap(file: h5py.File, stream: io.IOBase) -> int | None:
    """Return where a heap of text begins that is not as it was written, or None.

    Args:
        file: An opened file.
        stream: The same file.
    """
    if HEAPS not in file.attrs:
        return None
    place = stream.tell()
    try:
        for begin, size, checksum in np.asarray(file.attrs[HEAPS], dtype=np.int64).reshape(-1, 3).tolist():
            stream.seek(begin)
            if zlib.crc32(stream.read(size)) != checksum:
                return int(begin)
    finally:
        stream.seek(place)
    return None


def item_lines(path: str, item: h5py.Group | h5py.Dataset) -> list[str]:
    """Describe a folder or dataset as it stands in a file.

    Args:
        path: Its path, the root's empty.
        item: The folder or dataset.

    Returns:
        A line for itself and one for each attribute.
    """
    attributes = dict(item.attrs)
    lines = []
    if isinstance(item, h5py.Dataset):
        labels = attributes.pop(LABELS, ())
        texts = item[()] if item.dtype.kind in "SO" else None
        lines.append(dataset_line(path, item.shape, item.dtype, labels, texts))
    else:
        lines.append(folder_line(path))
    return [
        *lines,
        *(f"{path}@{name}={_plain(value)}" for name, value in attributes.items() if name not in (DIGEST, HEAPS)),
    ]


def folder_line(path: str) -> str:
    """Describe a folder without its attributes."""
    return f"{path}/"


def dataset_line(
    path: str, shape: tuple[int, ...], dtype: np.dtype[Any], labels: Sequence[str], texts: npt.ArrayLike | None
) -> str:
    """Describe a dataset.

    Args:
        path: Its path.
        shape: Its shape.
        dtype: Its type.
        labels: Of its axes; empty for none.
        texts: Its values where they are text.

    Returns:
        A line.
    """
    return f"{path} {shape} {dtype.str} {_plain(labels)} {_plain(texts)}"


def _plain(value: Any) -> str:
    """A value in one way of writing, whatever type it was read as."""
    return json.dumps(np.asarray(value).tolist(), default=lambda raw: raw.decode("utf-8", "backslashreplace"))
