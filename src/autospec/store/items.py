"""Folders, datasets, attributes and names of axes: written by HDF5's own calls.

They take a third of the time of h5py's, on which a file of many small datasets spends little else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

FORMAT = ("v110", "v110")
"""HDF5 1.10 and later, whose metadata carry checksums of their own."""

LABELS = "DIMENSION_LABELS"
"""HDF5's attribute of a dataset's axes."""

_TEXT = h5py.h5t.py_create(h5py.string_dtype(), logical=True)
_SCALAR = h5py.h5s.create(h5py.h5s.SCALAR)
_ABOVE = h5py.h5p.create(h5py.h5p.LINK_CREATE)
_ABOVE.set_create_intermediate_group(True)
_ABOVE.set_char_encoding(h5py.h5t.CSET_UTF8)
_UNFILLED = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
_UNFILLED.set_obj_track_times(False)
_UNFILLED.set_fill_time(h5py.h5d.FILL_TIME_NEVER)


def create_group(file: h5py.File, path: str) -> h5py.Group:
    """Return a new folder; those above it are made.

    Args:
        file: A file that is being written.
        path: The folder's path.
    """
    return h5py.Group(h5py.h5g.create(file.id, path.encode(), _ABOVE))


def create_dataset(
    file: h5py.File, path: str, dimensions: tuple[str, ...], values: npt.NDArray[np.generic]
) -> h5py.h5d.DatasetID:
    """Return a new dataset in one piece with labelled axes, whose values are yet to be written.

    Args:
        file: A file that is being written.
        path: The dataset's path; folders above it are made.
        dimensions: Names of its axes; none for no names.
        values: What it will hold.
    """
    kind, room = h5py.h5t.py_create(values.dtype, logical=True), h5py.h5s.create_simple(values.shape)
    dataset = h5py.h5d.create(file.id, path.encode(), kind, room, _UNFILLED, _ABOVE)
    for axis, dimension in enumerate(dimensions):
        h5py.h5ds.set_label(dataset, axis, dimension.encode())  # dims[axis].label takes three times as long
    return dataset


def set_attributes(item: h5py.File | h5py.Group, attributes: Mapping[str, Any]) -> None:
    """Give a new file or folder attributes.

    Args:
        item: The file or folder, which has none of these.
        attributes: By name: text, numbers, or what else h5py takes.
    """
    for name, value in attributes.items():
        if type(value) is str:
            h5py.h5a.create(item.id, name.encode(), _TEXT, _SCALAR).write(np.array(value, dtype=h5py.string_dtype()))
        elif isinstance(value, bool | int | float):
            number = np.array(value)
            kind = h5py.h5t.py_create(number.dtype, logical=True)
            h5py.h5a.create(item.id, name.encode(), kind, _SCALAR).write(number)
        else:
            item.attrs[name] = value


def axis_names(dataset: h5py.Dataset) -> list[str]:
    """Return the names of a dataset's axes.

    They are read as the attribute that they are: HDF5's own function crashes on a damaged one.

    Args:
        dataset: Of any file.

    Returns:
        A name for each axis, empty where it has none.
    """
    names = np.ravel(dataset.attrs.get(LABELS, ()))
    texts = [name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name or "") for name in names]
    return texts if len(texts) == dataset.ndim else [""] * dataset.ndim


def fixed_text(texts: npt.ArrayLike) -> npt.NDArray[np.bytes_]:
    """Return texts as HDF5 stores them within a dataset, not in a heap beside it: UTF-8 of one length.

    Args:
        texts: Any shape.

    Returns:
        Bytes of the same shape, which h5py writes as UTF-8 text.
    """
    encoded = np.vectorize(str.encode, otypes=[object])(np.asarray(texts, dtype=object))
    longest = max((len(text) for text in encoded.flat), default=1)
    return encoded.astype(h5py.string_dtype("utf-8", max(1, longest)))
