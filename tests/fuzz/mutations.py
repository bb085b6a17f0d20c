"""What may happen to a file: seeded changes of its bytes, of what is packed in it, of its structure or its lines."""

from __future__ import annotations

import gzip
import random
import struct
from collections.abc import Callable
from pathlib import Path

import h5py

EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
LINES = (b"\0", b"\n", b"\r", b"\t\t\t", b",,,", b"\xff\xfe", b'"', b"=1+1", b"nan", b"1e999", b"-", b"9" * 400, b"#")

Content = bytearray
Mutation = Callable[[Content, random.Random], Content]


def flip_bits(content: Content, chance: random.Random) -> Content:
    """Up to eight bits anywhere."""
    for _ in range(chance.randint(1, 8)):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return content


def flip_early(content: Content, chance: random.Random) -> Content:
    """A bit of the header, where most of what a parser follows stands."""
    content[chance.randrange(min(512, len(content)))] ^= 1 << chance.randrange(8)
    return content


def truncate(content: Content, chance: random.Random) -> Content:
    """The end is missing."""
    return content[: chance.randrange(len(content))]


def zero_span(content: Content, chance: random.Random) -> Content:
    """A block of the disk reads as zeros."""
    return _filled(content, chance, b"\0")


def fill_span(content: Content, chance: random.Random) -> Content:
    """A block of the disk reads as ones."""
    return _filled(content, chance, b"\xff")


def _filled(content: Content, chance: random.Random, byte: bytes) -> Content:
    start, length = chance.randrange(len(content)), chance.choice((4, 64, 512, 4096))
    span = min(length, len(content) - start)
    content[start : start + span] = byte * span
    return content


def copy_span(content: Content, chance: random.Random) -> Content:
    """A block of the file stands where another was."""
    length = min(chance.choice((4, 8, 64, 512)), len(content))
    source, target = (chance.randrange(len(content) - length + 1) for _ in range(2))
    content[target : target + length] = content[source : source + length]
    return content


def insert_or_delete(content: Content, chance: random.Random) -> Content:
    """Bytes too many or too few, as of a transfer that minds line breaks."""
    place, length = chance.randrange(len(content)), chance.randint(1, 16)
    if chance.random() < 0.5:
        return content[:place] + bytes(chance.randrange(256) for _ in range(length)) + content[place:]
    return content[:place] + content[place + length :]


def extreme_number(content: Content, chance: random.Random) -> Content:
    """A number of the file, where headers keep them, is as large or small as it can be."""
    size, form = chance.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    if len(content) < size:
        return content
    place = chance.randrange((len(content) - size) // size + 1) * size
    if chance.random() < 0.7:
        place %= 1024
    place = min(place, len(content) - size)
    struct.pack_into("<" + form, content, place, chance.choice(EXTREMES) % 256**size)
    return content


def edit_text(content: Content, chance: random.Random) -> Content:
    """What text must not hold, or holds twice."""
    place = chance.randrange(len(content))
    if chance.random() < 0.3:
        lines = bytes(content).splitlines(keepends=True)
        line = chance.randrange(len(lines))
        return bytearray(b"".join([*lines[:line], lines[line], *lines[line:]]))
    return content[:place] + chance.choice(LINES) + content[place:]


BYTES: tuple[Mutation, ...] = (
    flip_bits,
    flip_early,
    truncate,
    zero_span,
    fill_span,
    copy_span,
    insert_or_delete,
    extreme_number,
)
TEXT: tuple[Mutation, ...] = (*BYTES, edit_text, edit_text, edit_text)


def packed(mutation: Mutation) -> Mutation:
    """The same mutation of what is packed in a gzip file, whose own checksum then fits."""

    def of_packed(content: Content, chance: random.Random) -> Content:
        return bytearray(gzip.compress(bytes(mutation(bytearray(gzip.decompress(bytes(content))), chance)), mtime=0))

    of_packed.__name__ = f"{mutation.__name__} (packed)"
    return of_packed


GZIP = (*BYTES, *(packed(mutation) for mutation in BYTES))


def edit_hdf5(path: Path, chance: random.Random) -> None:
    """Change the structure of an HDF5 file with HDF5's own means: something lost, added, renamed or of another type.

    Args:
        path: The file, which is changed.
        chance: What decides.
    """
    with h5py.File(path, "r+") as file:
        paths: list[str] = []
        file.visit(paths.append)
        target = chance.choice(paths)
        edits = [_lose, _rename, _link, _change_attribute, _change_type, _change_shape, _circle, _move_out]
        chance.choice(edits)(file, target, chance)


def _lose(file: h5py.File, path: str, chance: random.Random) -> None:
    del file[path]


def _rename(file: h5py.File, path: str, chance: random.Random) -> None:
    file.move(path, path + chance.choice(("x", "\n", "é")))


def _link(file: h5py.File, path: str, chance: random.Random) -> None:
    del file[path]
    file[path] = chance.choice((h5py.SoftLink("/"), h5py.ExternalLink("/nowhere.h5", "/x"), h5py.SoftLink("/no")))


def _change_attribute(file: h5py.File, path: str, chance: random.Random) -> None:
    item = chance.choice((file, file[path]))
    names = list(item.attrs) or ["new"]
    item.attrs[chance.choice(names)] = chance.choice(("text", 3, -1.5, [1, 2], b"\xff"))


def _change_type(file: h5py.File, path: str, chance: random.Random) -> None:
    shape = file[path].shape if isinstance(file[path], h5py.Dataset) else (2,)
    del file[path]
    file.create_dataset(path, shape, chance.choice(("S3", "i1", "f4", "c16", h5py.ref_dtype, h5py.string_dtype())))


def _change_shape(file: h5py.File, path: str, chance: random.Random) -> None:
    del file[path]
    file.create_dataset(path, chance.choice(((), (0,), (7,), (1, 2, 3, 4), (2**31, 2**20))), "f8", chunks=None)


def _circle(file: h5py.File, path: str, chance: random.Random) -> None:
    folder = file[path] if isinstance(file[path], h5py.Group) else file[path].parent
    folder["circle"] = file


def _move_out(file: h5py.File, path: str, chance: random.Random) -> None:
    del file[path]
    file.create_dataset(path, (8,), "u1", external=[("/etc/hostname", 0, 8)])
