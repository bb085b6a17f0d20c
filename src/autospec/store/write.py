"""Writing a whole ``spectra.h5``, which is never half there (``atomic``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from autospec.store.atomic import write_atomically
from autospec.store.digest import FORMAT, write_digest
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.schema import (
    ALL,
    GROUP,
    GROUP_IS_MARGIN,
    GROUP_MEMBERS,
    GROUP_NAMES,
    GROUP_SIZES,
    LAYERS,
    OTHER_GROUP,
    PERMUTATION_PAIRS,
    PERMUTATION_REASONS,
    PERMUTATION_REFUSED,
    PERMUTATION_ROOT,
    PERMUTATION_STRATA,
    PERMUTATION_SUBJECTS,
    SCHEMA_VERSION,
)
from autospec.store.table import Array, SpectraTable

CHUNK_EPOCHS = 512
"""Chunks of one epoch make reading a long run some twenty times slower."""
CHUNK_BYTES = 1 << 20
"""Larger ones make it slow to read one group of a layer with many singular values."""


@dataclass
class Header:
    """What a file says beside its arrays.

    Attributes:
        groups: names of all reported groups, ``all`` first, margins last.
        margins: the disjoint groups that each margin is made of.
        group_sizes: subjects in each reported group, where they are counted.
        attributes: of the file's root.
        layers: attributes of each layer, by its name in the model's order.
        permutations: which pairs of groups are permuted, and which are not and why.
    """

    groups: Sequence[str]
    margins: Mapping[str, Sequence[str]] = field(default_factory=dict)
    group_sizes: Sequence[int] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)
    permutations: PermutationDesign | None = None


def write_spectra(path: Path, table: SpectraTable, header: Header) -> None:
    """Write a spectra file whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        table: every array that grows with the epochs.
        header: everything else.

    Raises:
        AutoSpecError: where the disk refuses, with what stood there before untouched.
    """
    image = spectra_bytes(table, header)
    with write_atomically(path) as temporary:
        temporary.write_bytes(image)


def spectra_bytes(table: SpectraTable, header: Header) -> bytes:
    """Return the bytes of a spectra file.

    They are made in memory, since a disk that fills up under HDF5 crashes the interpreter.
    """
    with h5py.File("spectra", "w", driver="core", backing_store=False, libver=FORMAT) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs.update(header.attributes)
        _write_groups(file, header)
        layers = file.create_group(LAYERS, track_order=True)  # read back in the model's order
        for name, attributes in header.layers.items():
            layers.create_group(name).attrs.update(attributes)
        _write_permutations(file, header.permutations)
        for array in table:
            _write_array(file, array.field.path, array.field.dimensions, array.values)
        write_digest(file)
        file.flush()
        return bytes(file.id.get_file_image())


def _write_groups(file: h5py.File, header: Header) -> None:
    names = np.array(list(header.groups), dtype=object)
    _write_array(file, GROUP_NAMES, (GROUP,), names)
    if header.group_sizes is not None:
        _write_array(file, GROUP_SIZES, (GROUP,), np.asarray(header.group_sizes, dtype=np.int64))
    _write_array(file, GROUP_IS_MARGIN, (GROUP,), np.array([name in header.margins for name in header.groups]))
    _write_array(file, GROUP_MEMBERS, (GROUP, OTHER_GROUP), _members(header))


def _write_permutations(file: h5py.File, design: PermutationDesign | None) -> None:
    """Which pairs were permuted, and which were not and why."""
    if design is None:
        return
    group = file.create_group(PERMUTATION_ROOT)
    group.attrs.update({"permutations": design.permutations, "relabellings": design.digest()})
    subjects = [[int((pair.members[0] == code).sum()) for code in (1, 2)] for pair in design.pairs]
    arrays = {
        PERMUTATION_PAIRS: np.array([[pair.a, pair.b] for pair in design.pairs], dtype=object).reshape(-1, 2),
        PERMUTATION_STRATA: np.array([", ".join(pair.strata) for pair in design.pairs], dtype=object),
        PERMUTATION_REFUSED: np.array(list(design.refused), dtype=object).reshape(-1, 2),
        PERMUTATION_REASONS: np.array(list(design.refused.values()), dtype=object),
    }
    for path, values in arrays.items():
        _write_array(file, path, (), values)
    _write_array(file, PERMUTATION_SUBJECTS, (), np.array(subjects, dtype=np.int64).reshape(-1, 2))


def _members(header: Header) -> Array:
    """(group, group): the disjoint groups that each group is made of; ``all`` is made of every one."""
    disjoint = [name for name in header.groups if name != ALL and name not in header.margins]
    parts = {ALL: disjoint, **header.margins}
    return np.array([[other in parts.get(name, [name]) for other in header.groups] for name in header.groups])


def _write_array(file: h5py.File, path: str, dimensions: tuple[str, ...], values: Array) -> None:
    if values.dtype == object:
        values = fixed_text(values)
    chunks = _chunks(values)
    dataset = file.create_dataset(path, data=values, chunks=chunks, fletcher32=chunks is not None)
    for axis, dimension in enumerate(dimensions):
        dataset.dims[axis].label = dimension


def fixed_text(texts: npt.ArrayLike) -> Array:
    """Return texts as HDF5 stores them within a dataset, where its checksum reaches: UTF-8 of one length.

    Args:
        texts: Any shape.

    Returns:
        Bytes of the same shape, which h5py writes as UTF-8 text.
    """
    encoded = np.vectorize(str.encode, otypes=[object])(np.asarray(texts, dtype=object))
    longest = max((len(text) for text in encoded.flat), default=1)
    return encoded.astype(h5py.string_dtype("utf-8", max(1, longest)))


def _chunks(values: Array) -> tuple[int, ...] | None:
    """Chunks that hold many epochs, of about a megabyte; none (contiguous) for an empty array."""
    if values.size == 0:
        return None
    item_bytes = values.nbytes // len(values)
    return (int(np.clip(CHUNK_BYTES // item_bytes, 1, min(len(values), CHUNK_EPOCHS))), *values.shape[1:])


def hdf5_attributes(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping as HDF5 takes it for attributes: None becomes an empty string, a subclass of str a str."""
    return {
        key: str(value or "") if value is None or isinstance(value, str) else value for key, value in mapping.items()
    }
