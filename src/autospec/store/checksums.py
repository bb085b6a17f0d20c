"""How damage to a file is seen: checksums of values, and digests of what these leave out.

Every dataset is written with HDF5's fletcher32, and with gzip's Adler-32. The digest of the structure covers every
path, shape and type, every attribute, and text. HDF5 keeps text of attributes in heaps without a checksum, and hangs or
crashes on a damaged one: a third attribute, of numbers alone, holds their checksums, and is looked at before any text.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt

CHECKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 0, "fletcher32": True}
"""How values are stored. Gzip packs nothing here, but has Adler-32, which tells zeros from ones; fletcher32 alone takes
a word of sixteen zeros for one of sixteen ones."""

DIGEST = "structure_digest"
"""The root attribute that holds it. Files of earlier versions have none."""

FORMAT = ("v110", "v110")
"""HDF5 1.10 and later: of this format HDF5 itself checks all that leads to the values."""


HEAPS = "text_checksums"
"""The root attribute (n, 3) of the heaps of text: where each begins, its bytes, its CRC-32."""
HEAP_BEGINS = b"GCOL\x01\0\0\0"

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


def digest_to_write(
    arrays: Iterable[tuple[str, Sequence[str], npt.NDArray[Any]]], folders: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return the digest of the structure of a file that is about to be written.

    Args:
        arrays: Path, names of axes and values of each dataset.
        folders: The attributes of each folder that has any, by its path; the root's is empty.

    Returns:
        As ``structure_digest``, of the datasets, these folders, and those above the datasets.
    """
    lines: list[str] = []
    every = dict(folders)
    for path, axes, values in arrays:
        texts = values if values.dtype.kind == "S" else None
        lines.append(dataset_line(path, values.shape, values.dtype, axes, texts))
        above = path
        while above := above.rpartition("/")[0]:
            every.setdefault(above, {})
    for path, attributes in every.items():
        lines += folder_lines(path, attributes)
    return structure_digest(lines)


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


def write_digest(file: h5py.File) -> None:
    """Write the digest of a file's structure into it, when all else is written.

    Args:
        file: The file, open for writing.
    """
    lines = item_lines("", file)
    file.visititems(lambda path, item: lines.extend(item_lines(path, item)))
    file.attrs[DIGEST] = structure_digest(lines)


def seal(path: Path) -> None:
    """Write the checksums of a closed file's heaps of text into it.

    Args:
        path: The file.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        checksums = text_checksums(content)
    with h5py.File(path, "r+", libver=FORMAT) as file:
        file.attrs[HEAPS] = checksums


def text_checksums(content: bytes | mmap.mmap) -> npt.NDArray[np.int64]:
    """Return the checksums of a file's heaps of text; values that look like a heap by chance do no harm.

    Args:
        content: The file, or its beginning as far as there is text.

    Returns:
        (n, 3) where each begins, its bytes, its CRC-32.
    """
    heaps, at = [], content.find(HEAP_BEGINS)
    while at >= 0:
        size = int.from_bytes(content[at + 8 : at + 16], "little")
        if 0 < size <= len(content) - at:
            heaps.append((at, size, zlib.crc32(content[at : at + size])))
        at = content.find(HEAP_BEGINS, at + 1)
    return np.array(heaps, dtype=np.int64).reshape(-1, 3)


def damaged_heap(file: h5py.File, stream: BinaryIO) -> int | None:
    """Return where a heap of text begins that is not as it was written, or None.

    Args:
        file: An opened file.
        stream: The same file.
    """
    if HEAPS not in file.attrs:  # written by an earlier version
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
    if not isinstance(item, h5py.Dataset):
        return folder_lines(path, attributes)
    labels = attributes.pop(LABELS, ())
    texts = item[()] if item.dtype.kind in "SO" else None
    return [dataset_line(path, item.shape, item.dtype, labels, texts), *_attribute_lines(path, attributes)]


def folder_lines(path: str, attributes: Mapping[str, Any]) -> list[str]:
    """Describe a folder.

    Args:
        path: Its path, the root's empty.
        attributes: Its attributes, as they are read or as they are written.

    Returns:
        A line for itself and one for each attribute.
    """
    return [f"{path}/", *_attribute_lines(path, attributes)]


def _attribute_lines(path: str, attributes: Mapping[str, Any]) -> list[str]:
    return [f"{path}@{name}={_plain(value)}" for name, value in attributes.items() if name not in (DIGEST, HEAPS)]


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
    if value is None:
        return "null"
    return json.dumps(np.asarray(value).tolist(), default=lambda raw: raw.decode("utf-8", "backslashreplace"))
