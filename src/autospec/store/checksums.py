"""How damage to a file is seen: checksums of values, and the digest of what these leave out.

Every dataset is written with HDF5's fletcher32. The digest covers every path, shape and type, every attribute, and text: HDF5 keeps text apart from the datasets that point to
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


def axis_names(dataset: h5py.Dataset) -> list[str]:
    """Return the names of a dataset's axes, empty where there are none.

    They are read as the attribute that they are: HDF5's own function crashes on a damaged one.

    Args:
        dataset: Of any file.
    """
    names = np.ravel(dataset.attrs.get(LABELS, ()))
    texts = [name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name or "") for name in names]
    return texts if len(texts) == dataset.ndim else [""] * dataset.ndim


def write_digest(file: h5py.File) -> None:
    """Write the digest of a file's structure into it, when all else is written.

    Args:
        file: The file, open for writing.
    """
    lines = item_lines("", file)
    file.visititems(lambda path, item: lines.extend(item_lines(path, item)))
    file.attrs[DIGEST] = structure_digest(lines)


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


def fixed_text(texts: npt.ArrayLike) -> npt.NDArray[np.bytes_]:
    """Return texts as HDF5 stores them within a dataset, where its checksum reaches: UTF-8 of one length.

    Args:
        texts: Any shape.

    Returns:
        Bytes of the same shape, which h5py writes as UTF-8 text.
    """
    encoded = np.vectorize(str.encode, otypes=[object])(np.asarray(texts, dtype=object))
    longest = max((len(text) for text in encoded.flat), default=1)
    return encoded.astype(h5py.string_dtype("utf-8", max(1, longest)))


def _plain(value: Any) -> str:
    """A value in one way of writing, whatever type it was read as."""
    return json.dumps(np.asarray(value).tolist(), default=lambda raw: raw.decode("utf-8", "backslashreplace"))
