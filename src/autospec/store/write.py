"""Writing a whole ``spectra.h5``, which is never half there (``atomic``)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from autospec.store.atomic import write_atomically
from autospec.store.checksums import (
    CHECKED,
    DIGEST,
    FORMAT,
    HEAPS,
    digest_to_write,
    fixed_text,
    text_checksums,
)
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.schema import (
    ALL,
    COVARIATE,
    GROUP,
    GROUP_IS_MARGIN,
    GROUP_MEMBERS,
    GROUP_NAMES,
    GROUP_SIZES,
    JOINT_TEXTS,
    LAYERS,
    OMNIBUS,
    OTHER_GROUP,
    PERMUTATION_PAIRS,
    PERMUTATION_REASONS,
    PERMUTATION_REFUSED,
    PERMUTATION_ROOT,
    PERMUTATION_STRATA,
    PERMUTATION_SUBJECTS,
    SCHEMA_VERSION,
    joint_path,
    layer_path,
)
from autospec.store.table import AnyArray, GrowingArray, SpectraTable

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


def spectra_bytes(table: Iterable[GrowingArray], header: Header) -> bytes:
    """Return the bytes of a spectra file.

    They are made in memory, since a disk that fills up under HDF5 crashes the interpreter.
    """
    arrays = [*_group_arrays(header), *_permutation_arrays(header.permutations)]
    arrays += [(array.field.path, array.field.dimensions, array.values) for array in table]
    folders = _attributed_folders(header)
    stream = io.BytesIO()  # takes a third less time than HDF5's own files in memory, which are copied to get at them
    with h5py.File(stream, "w", libver=FORMAT) as file:
        file.create_group(LAYERS, track_order=True)  # read back in the model's order
        for path, attributes in folders.items():
            file.require_group(path or "/").attrs.update(attributes)
        datasets = [_create_dataset(file, *array) for array in arrays]
        # now that HDF5 has taken the attributes: what it refuses has no digest, either
        file.attrs[DIGEST] = digest_to_write(arrays, folders)
        file.flush()
        file.attrs[HEAPS] = text_checksums(stream.getvalue())  # all text is there, and no value yet: a quick search
        for dataset, (_, _, values) in zip(datasets, arrays, strict=True):
            if values.size:
                dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values))
    return stream.getvalue()


def _group_arrays(header: Header) -> Iterator[tuple[str, tuple[str, ...], AnyArray]]:
    """The datasets that describe the groups: path, labels of axes, values."""
    yield GROUP_NAMES, (GROUP,), fixed_text(header.groups)
    if header.group_sizes is not None:
        yield GROUP_SIZES, (GROUP,), np.asarray(header.group_sizes, dtype=np.int64)
    yield GROUP_IS_MARGIN, (GROUP,), np.array([name in header.margins for name in header.groups])
    yield GROUP_MEMBERS, (GROUP, OTHER_GROUP), _members(header)


def _permutation_arrays(design: PermutationDesign | None) -> Iterator[tuple[str, tuple[str, ...], AnyArray]]:
    """The datasets that say which pairs were permuted, and which were not and why."""
    if design is None:
        return
    subjects = [[int((pair.members[0] == code).sum()) for code in (1, 2)] for pair in design.pairs]
    yield PERMUTATION_PAIRS, (), fixed_text([[pair.a, pair.b] for pair in design.pairs]).reshape(-1, 2)
    yield PERMUTATION_STRATA, (), fixed_text([", ".join(pair.strata) for pair in design.pairs])
    yield PERMUTATION_REFUSED, (), fixed_text(list(design.refused)).reshape(-1, 2)
    yield PERMUTATION_REASONS, (), fixed_text(list(design.refused.values()))
    yield PERMUTATION_SUBJECTS, (), np.array(subjects, dtype=np.int64).reshape(-1, 2)
    if design.omnibus is not None or design.refused_omnibus:
        names = design.omnibus.groups if design.omnibus else ()
        strata = [", ".join(design.omnibus.strata)] if design.omnibus else []
        yield from _joint_arrays(OMNIBUS, names, strata, design.refused_omnibus)
    if design.covariates or design.refused_covariates:
        names = tuple(covariate.name for covariate in design.covariates)
        strata = [", ".join(covariate.strata) for covariate in design.covariates]
        yield from _joint_arrays(COVARIATE, names, strata, design.refused_covariates)


def _joint_arrays(
    kind: str, names: Sequence[str], strata: Sequence[str], refused: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, ...], AnyArray]]:
    """The datasets that say what else was permuted, in the order of ``JOINT_TEXTS``."""
    texts = (names, strata, list(refused), list(refused.values()))
    for name, values in zip(JOINT_TEXTS, texts, strict=True):
        yield joint_path(kind, name), (), fixed_text(values)


def _attributed_folders(header: Header) -> dict[str, dict[str, Any]]:
    """The folders that have attributes, and these, in the order in which they are made; the root's path is empty."""
    folders: dict[str, dict[str, Any]] = {"": {"schema_version": SCHEMA_VERSION, **header.attributes}, LAYERS: {}}
    folders |= {layer_path(name): attributes for name, attributes in header.layers.items()}
    if (design := header.permutations) is not None:
        folders[PERMUTATION_ROOT] = {"permutations": design.permutations, "relabellings": design.digest()}
    return folders


def _members(header: Header) -> AnyArray:
    """(group, group): the disjoint groups that each group is made of; ``all`` is made of every one."""
    disjoint = [name for name in header.groups if name != ALL and name not in header.margins]
    parts = {ALL: disjoint, **header.margins}
    return np.array([[other in parts.get(name, [name]) for other in header.groups] for name in header.groups])


def _create_dataset(file: h5py.File, path: str, dimensions: tuple[str, ...], values: AnyArray) -> h5py.h5d.DatasetID:
    """A dataset with checksums and labelled axes, whose values are yet to be written."""
    chunks = _chunks(values)
    checked = {} if chunks is None else CHECKED  # an empty array has nothing to be checked
    dataset = file.create_dataset(path, values.shape, values.dtype, chunks=chunks, **checked).id
    for axis, dimension in enumerate(dimensions):
        h5py.h5ds.set_label(dataset, axis, dimension.encode())  # dims[axis].label takes three times as long
    return dataset


def _chunks(values: AnyArray) -> tuple[int, ...] | None:
    """Chunks that hold many epochs, of about a megabyte; none (contiguous) for an empty array."""
    if values.size == 0:
        return None
    epochs, item_bytes = len(values), values.nbytes // len(values)
    longest = max(1, min(CHUNK_BYTES // item_bytes, CHUNK_EPOCHS))
    chunks = -(-epochs // longest)
    # equally long ones: the last is stored as long as the others
    return (-(-epochs // chunks), *values.shape[1:])


def hdf5_attributes(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping as HDF5 takes it for attributes: None becomes an empty string, a subclass of str a str."""
    return {
        key: str(value or "") if value is None or isinstance(value, str) else value for key, value in mapping.items()
    }
