"""Whether a file holds what it may hold (``contents``), asked before anything in it is allocated or followed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

import h5py
import numpy as np

from autospec.errors import DamagedFile
from autospec.harmless import visible
from autospec.store.checksums import axis_names
from autospec.store.contents import (
    DEEPEST,
    FILTERS,
    LABELLED,
    MOST_DIMENSIONS,
    MOST_OBJECTS,
    MOST_UNPACKED,
    SHARED_AXES,
    SPECTRA,
    TYPES,
    Content,
    described,
)

SIMPLE = frozenset({h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM})
"""The types of HDF5 that a file may hold: numbers, text and truth values; nothing that points elsewhere."""


@dataclass
class Validation:
    """The check of one opened file.

    Attributes:
        name: The file, as messages name it.
        contents: What it may hold.
        file_bytes: Its size.
    """

    name: str
    contents: tuple[Content, ...]
    file_bytes: int
    types: ClassVar[frozenset[int]] = SIMPLE
    filters: ClassVar[frozenset[int]] = FILTERS
    complete_chunks: ClassVar[bool] = True
    """Whether every chunk must be there."""
    _lengths: dict[str, tuple[int, str]] = field(default_factory=dict)
    _chunks: dict[int, str] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)

    def items(self, file: h5py.File) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
        """Yield every folder and dataset with its path, each after its check; the root's path is empty.

        Raises:
            DamagedFile: For the first thing that does not fit; names the file and the path.
        """
        yield "", self._with_attributes("", file)
        yield from self._below("", file, ())

    def _below(
        self, path: str, group: h5py.Group, above: tuple[int, ...]
    ) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
        above = (*above, h5py.h5o.get_info(group.id).addr)
        if len(above) > DEEPEST:
            raise self._misfit(path, f"lies more than {DEEPEST} folders deep")
        for raw in list(group.id):
            inner = self._inner_path(path, raw)
            if group.id.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
                raise self._misfit(inner, "is a link to somewhere else")
            identifier = h5py.h5o.open(group.id, raw)
            address = h5py.h5o.get_info(identifier).addr
            if address in above:
                raise self._misfit(inner, "is a link back to a folder that it lies in")
            self._seen.add(address)
            if len(self._seen) > MOST_OBJECTS:
                raise self._misfit(inner, f"is one of more than {MOST_OBJECTS} datasets and folders")
            if isinstance(identifier, h5py.h5d.DatasetID):
                self._check_storage(inner, identifier, address)
                yield inner, self._checked(inner, h5py.Dataset(identifier))
            elif isinstance(identifier, h5py.h5g.GroupID):
                item = h5py.Group(identifier)
                if any(content.path == inner for content in self.contents):
                    raise self._misfit(inner, "is a folder, not a dataset")
                yield inner, self._with_attributes(inner, item)
                yield from self._below(inner, item, above)
            else:
                raise self._misfit(inner, "is neither a dataset nor a folder")

    def _inner_path(self, path: str, raw: bytes) -> str:
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self._misfit(f"{path}/{raw!r}", "has a name that is not UTF-8 text") from None
        return f"{path}/{name}" if path else name

    def _with_attributes(self, path: str, item: h5py.Group | h5py.Dataset) -> h5py.Group | h5py.Dataset:
        """The item, after a check of its attributes."""
        for number in range(h5py.h5a.get_num_attrs(item.id)):
            attribute = h5py.h5a.open(item.id, index=number)
            whole = f"{path}@{_text(attribute.name)}"
            if attribute.get_type().get_class() not in self.types:
                if attribute.name in (b"DIMENSION_LIST", b"REFERENCE_LIST"):  # of HDF5's own, and never read
                    continue
                raise self._misfit(whole, "is neither text nor numbers")
            if attribute.get_storage_size() > self.file_bytes:
                raise self._misfit(whole, "is larger than the file")
            self._compare(whole, attribute.dtype, attribute.shape)
        return item

    def _check_storage(self, path: str, dataset: h5py.h5d.DatasetID, address: int) -> None:
        """That a dataset lies in this file, whole, and unpacks to no more than it can."""
        plan = dataset.get_create_plist()
        layout = plan.get_layout()
        if layout == h5py.h5d.VIRTUAL:
            raise self._misfit(path, "is a view into other datasets")
        if plan.get_external_count():
            raise self._misfit(path, "lies in another file")
        if dataset.get_type().get_class() not in self.types:
            raise self._misfit(path, "is neither text nor numbers")
        filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
        if not filters <= self.filters:
            other = max(filters - self.filters)
            raise self._misfit(path, f"is packed by filter {other}, which this program does not use")
        shape = dataset.shape
        if shape is None or len(shape) > MOST_DIMENSIONS:
            raise self._misfit(path, f"has no values, or more than {MOST_DIMENSIONS} dimensions")
        wanted = math.prod(shape) * dataset.get_type().get_size()
        stored = dataset.get_storage_size()
        if stored > self.file_bytes or wanted > stored * (MOST_UNPACKED if filters - {2, 3} else 1):
            raise self._misfit(path, f"claims {wanted} bytes, of which the file holds {min(stored, self.file_bytes)}")
        if layout == h5py.h5d.CHUNKED and self.complete_chunks:
            self._check_chunks(path, dataset, plan.get_chunk(), filters, address)

    def _check_chunks(
        self, path: str, dataset: h5py.h5d.DatasetID, chunk: tuple[int, ...], filters: set[int], address: int
    ) -> None:
        """That every chunk is there, at a place of its own; HDF5 fills one that is missing with zeros."""
        if any(length > max(1, whole) for length, whole in zip(chunk, dataset.shape, strict=True)):
            raise self._misfit(path, f"has chunks {chunk} larger than its shape {dataset.shape}")
        starts: set[tuple[int, ...]] = set()
        chunk_bytes = math.prod(chunk) * dataset.get_type().get_size() + (4 if 3 in filters else 0)
        misplaced: list[str] = []

        def visit(stored: h5py.h5d.StoreInfo) -> None:
            starts.add(stored.chunk_offset)
            other = self._chunks.setdefault(stored.byte_offset, f"{address} {stored.chunk_offset}")
            if (
                other != f"{address} {stored.chunk_offset}"
                or (filters and stored.filter_mask)
                or (1 not in filters and stored.size != chunk_bytes)
                or any(start % length for start, length in zip(stored.chunk_offset, chunk, strict=True))
            ):
                misplaced.append(str(stored.chunk_offset))

        dataset.chunk_iter(visit)
        expected = math.prod(-(-whole // length) for whole, length in zip(dataset.shape, chunk, strict=True))
        if misplaced or len(starts) != expected:
            raise self._misfit(path, f"has {len(starts) - len(misplaced)} of its {expected} chunks in their place")

    def _checked(self, path: str, dataset: h5py.Dataset) -> h5py.Dataset:
        """The dataset, after a check of its type, its axes and their labels."""
        self._with_attributes(path, dataset)
        if any(content.path.startswith(f"{path}/") for content in self.contents):
            raise self._misfit(path, "is a dataset, not a folder")
        self._compare(path, dataset.dtype, dataset.shape)
        if self.contents is SPECTRA and fnmatchcase(path, LABELLED):
            names = axis_names(dataset)
            if not all(names) or len(set(names)) < len(names):
                raise self._misfit(path, "has axes without a name of their own")
            self._compare_lengths(path, dataset.shape, [SHARED_AXES.get(name, f"_{name}") for name in names])
        return dataset

    def _compare(self, path: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        """Hold a dataset or attribute against its description."""
        content = described(path, self.contents)
        if content is None:
            return
        if dtype.kind not in TYPES[content.type]:
            raise self._misfit(path, f"is {dtype}, not {content.type}")
        if content.dimensions is None:
            return
        if len(shape) != len(content.dimensions):
            raise self._misfit(path, f"has {len(shape)} dimensions, not {len(content.dimensions)}")
        self._compare_lengths(path, shape, content.dimensions)

    def _compare_lengths(self, path: str, shape: tuple[int, ...], axes: Sequence[str]) -> None:
        for length, axis in zip(shape, axes, strict=True):
            expected, of = self._lengths.setdefault(axis, (length, path))
            if not axis.startswith("_") and length != expected:
                raise self._misfit(path, f"has {length} entries along {axis}, where /{of} has {expected}")

    def _misfit(self, path: str, what: str) -> DamagedFile:
        where = visible(path.lstrip("/"))
        return DamagedFile(f"{self.name}: /{where} {what}; the file is damaged or not of this program")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
