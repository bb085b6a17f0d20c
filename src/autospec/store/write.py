"""Writing a whole ``spectra.h5``, which is never half there (``atomic``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from autospec.store.atomic import write_atomically
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
from autospec.store.table import AnyArray, SpectraTable

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
    with h5py.File("spectra", "w", driver="core", backing_store=False) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs.update(header.attributes)
        _write_groups(file, header)
        layers = file.create_group(LAYERS, track_order=True)  # read back in the model's order
        for name, attributes in header.layers.items():
            layers.create_group(name).attrs.update(attributes)
        _write_permutations(file, header.permutations)
        for array in table:
            _write_array(file, array.field.path, array.field.dimensions, array.values)
        file.flush()
        return bytes(file.id.get_file_image())


def _write_groups(file: h5py.File, header: Header) -> None:
    names = file.create_dataset(
        GROUP_NAMES, data=np.array(list(header.groups), dtype=object), dtype=h5py.string_dtype()
    )
    names.dims[0].label = GROUP
    if header.group_sizes is not None:
        file.create_dataset(GROUP_SIZES, data=np.asarray(header.group_sizes, dtype=np.int64)).dims[0].label = GROUP
    margin = np.array([name in header.margins for name in header.groups])
    file.create_dataset(GROUP_IS_MARGIN, data=margin).dims[0].label = GROUP
    members = file.create_dataset(GROUP_MEMBERS, data=_members(header))
    for axis, label in enumerate((GROUP, OTHER_GROUP)):
        members.dims[axis].label = label


def _write_permutations(file: h5py.File, design: PermutationDesign | None) -> None:
    """Which pairs were permuted, and which were not and why."""
    if design is None:
        return
    group = file.create_group(PERMUTATION_ROOT)
    group.attrs.update({"permutations": design.permutations, "relabellings": design.digest()})
    text = h5py.string_dtype()
    subjects = [[int((pair.members[0] == code).sum()) for code in (1, 2)] for pair in design.pairs]
    arrays = {
        PERMUTATION_PAIRS: np.array([[pair.a, pair.b] for pair in design.pairs], dtype=object).reshape(-1, 2),
        PERMUTATION_STRATA: np.array([", ".join(pair.strata) for pair in design.pairs], dtype=object),
        PERMUTATION_REFUSED: np.array(list(design.refused), dtype=object).reshape(-1, 2),
        PERMUTATION_REASONS: np.array(list(design.refused.values()), dtype=object),
    }
    for path, values in arrays.items():
        file.create_dataset(path, data=values, dtype=text)
    file.create_dataset(PERMUTATION_SUBJECTS, data=np.array(subjects, dtype=np.int64).reshape(-1, 2))


def _members(header: Header) -> AnyArray:
    """(group, group): the disjoint groups that each group is made of; ``all`` is made of every one."""
    disjoint = [name for name in header.groups if name != ALL and name not in header.margins]
    parts = {ALL: disjoint, **header.margins}
    return np.array([[other in parts.get(name, [name]) for other in header.groups] for name in header.groups])


def _write_array(file: h5py.File, path: str, dimensions: tuple[str, ...], values: AnyArray) -> None:
    dataset = file.create_dataset(path, data=values, chunks=_chunks(values))
    for axis, dimension in enumerate(dimensions):
        dataset.dims[axis].label = dimension


def _chunks(values: AnyArray) -> tuple[int, ...] | None:
    """Chunks that hold many epochs, of about a megabyte; none (contiguous) for an empty array."""
    if values.size == 0:
        return None
    item_bytes = max(1, values[0].size) * values.itemsize
    return (int(np.clip(CHUNK_BYTES // item_bytes, 1, min(len(values), CHUNK_EPOCHS))), *values.shape[1:])


def hdf5_attributes(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping as HDF5 takes it for attributes: None becomes an empty string, a subclass of str a str."""
    return {
        key: str(value or "") if value is None or isinstance(value, str) else value for key, value in mapping.items()
    }
