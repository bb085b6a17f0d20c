"""MATLAB files as dictionaries of arrays: version 5 through SciPy, version 7.3 through h5py with its axes reversed."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from autospec.errors import AutoSpecError
from autospec.foreign.files import STEP_BYTES, check_claim, check_unpacked, file_bytes
from autospec.foreign.hdf5 import is_hdf5, open_foreign
from autospec.foreign.process import read_apart

Struct = dict[str, Any]
"""Name → array, or a list of the elements of a struct array."""

HEADER_BYTES = 128
ORDERS = {b"IM": "<", b"MI": ">"}
"""The end of the header of version 5, and the order of bytes that it stands for."""
COMPRESSED = 15
"""The type of a variable that is packed."""

DEEPEST = 32
"""Levels of structs in structs."""


def read_mat(file: Path) -> Struct:
    """Every variable of a file; numbers alone are read, and nothing in the file is run.

    Args:
        file: A .mat file of version 5 to 7.3.

    Returns:
        The variables by name.

    Raises:
        AutoSpecError: It cannot be read.
    """
    return read_apart(variables, file)


def variables(file: Path) -> Struct:
    """``read_mat`` in this process, which a damaged file may kill.

    Args:
        file: A .mat file.

    Returns:
        The variables by name.

    Raises:
        AutoSpecError: It cannot be read.
    """
    if is_hdf5(file):
        with open_foreign(file) as root:
            return {name: _node(root, root[name]) for name in root if not name.startswith("#")}
    from scipy.io import loadmat

    check_claims(file)
    try:
        content = loadmat(file, squeeze_me=False, struct_as_record=True)
    except MemoryError:
        raise
    except Exception as error:
        raise AutoSpecError(f"{file}: cannot be read as a MATLAB file: {' '.join(str(error).split())}") from error
    return {name: _value(value) for name, value in content.items() if not name.startswith("__")}


def check_claims(file: Path) -> None:
    """Refuse a file of version 5 whose variables claim more bytes than it has, or unpack to too many.

    Args:
        file: A .mat file.

    Raises:
        AutoSpecError: It does.
    """
    size = file_bytes(file)
    with file.open("rb") as stream:
        mark = stream.read(HEADER_BYTES)[-2:]
        if mark not in ORDERS:  # version 4, whose variables SciPy holds against the file
            return
        while len(tag := stream.read(8)) == 8:
            kind, claimed = struct.unpack(ORDERS[mark] + "II", tag)
            begin = stream.tell()
            check_claim(file, begin + claimed, size, is_packed=False)
            if kind == COMPRESSED:
                inner = zlib.decompressobj().decompress(stream.read(min(claimed, STEP_BYTES)), 8)
                if len(inner) == 8:
                    check_unpacked(file, struct.unpack(ORDERS[mark] + "II", inner)[1], claimed)
            stream.seek(begin + claimed)


def _value(value: Any) -> Any:
    """A variable of version 5: a struct array is a list of dictionaries."""
    if not isinstance(value, np.ndarray) or value.dtype.names is None:
        return value
    return [{name: element[name] for name in value.dtype.names} for element in value.ravel()]


def _node(root: Any, node: Any, depth: int = 0) -> Any:
    """A variable of version 7.3; the fields of a struct array are references to its elements."""
    if depth > DEEPEST:
        raise ValueError(f"its structs lie {DEEPEST} levels deep, or in a circle")
    if isinstance(node, h5py.Dataset):
        return np.asarray(node[()]).T
    fields = {name: node[name] for name in node}
    if all(isinstance(field, h5py.Dataset) and h5py.check_ref_dtype(field.dtype) for field in fields.values()):
        elements = {
            name: [_node(root, root[ref], depth + 1) for ref in field[()].ravel()] for name, field in fields.items()
        }
        return [dict(zip(elements, row, strict=True)) for row in zip(*elements.values(), strict=True)]
    return [{name: _node(root, field, depth + 1) for name, field in fields.items()}]
