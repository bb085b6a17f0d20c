"""The digest of a file's structure: what its checksums of values (fletcher32) leave out.

It covers every path, shape and type, every attribute, and text: HDF5 keeps text apart from the datasets that point to
it, where no checksum of its own reaches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

DIGEST = "structure_digest"
"""The root attribute that holds it. Files of earlier versions have none."""

FORMAT = ("v110", "v110")
"""HDF5 1.10 and later: of this format HDF5 itself checks all that leads to the values."""


LABELS = "DIMENSION_LABELS"
"""HDF5's attribute of a dataset's axes."""


def structure_digest(lines: Iterable[str]) -> str:
    """Return the digest of a file's structure.

    Args:
        lines: What ``item_lines`` says of every folder and dataset, in any order.

    Returns:
        Hexadecimal digits.
    """
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "backslashreplace")).hexdigest()


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
    return [*lines, *(f"{path}@{name}={_plain(value)}" for name, value in attributes.items() if name != DIGEST)]


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
    """
    return f"{path} {shape} {dtype.str} {_plain(labels)} {_plain(texts)}"


def _plain(value: Any) -> str:
    """A value in one way of writing, whatever type it was read as."""
    return json.dumps(np.asarray(value).tolist(), default=lambda raw: raw.decode("utf-8", "backslashreplace"))
