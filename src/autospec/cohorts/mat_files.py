"""MATLAB files as dictionaries of arrays: version 5 through SciPy, version 7.3 through h5py with its axes reversed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from autospec.errors import AutoSpecError

Struct = dict[str, Any]
"""Name → array, or a list of the elements of a struct array."""


def read_mat(file: Path) -> Struct:
    """Every variable of a file; numbers alone are read, and nothing in the file is run.

    Args:
        file: A .mat file of version 5 to 7.3.

    Returns:
        The variables by name.

    Raises:
        AutoSpecError: It cannot be read.
    """
    try:
        if h5py.is_hdf5(file):
            with h5py.File(file, "r") as root:
                return {name: _node(root, root[name]) for name in root if not name.startswith("#")}
        from scipy.io import loadmat

        content = loadmat(file, squeeze_me=False, struct_as_record=True)
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise AutoSpecError(f"{file}: cannot be read as a MATLAB file: {' '.join(str(error).split())}") from error
    return {name: _value(value) for name, value in content.items() if not name.startswith("__")}


def _value(value: Any) -> Any:
    """A variable of version 5: a struct array is a list of dictionaries."""
    if not isinstance(value, np.ndarray) or value.dtype.names is None:
        return value
    return [{name: element[name] for name in value.dtype.names} for element in value.ravel()]


def _node(root: Any, node: Any) -> Any:
    """A variable of version 7.3; the fields of a struct array are references to its elements."""
    if isinstance(node, h5py.Dataset):
        return np.asarray(node[()]).T
    fields = {name: node[name] for name in node}
    if all(isinstance(field, h5py.Dataset) and h5py.check_ref_dtype(field.dtype) for field in fields.values()):
        elements = {name: [_node(root, root[ref]) for ref in field[()].ravel()] for name, field in fields.items()}
        return [dict(zip(elements, row, strict=True)) for row in zip(*elements.values(), strict=True)]
    return [{name: _node(root, field) for name, field in fields.items()}]
