"""The checksums of a file's own bytes: written into its last dataset, and checked before any byte is given out.

HDF5's own cost a fifth of the time of writing and more, need chunks, and leave out the text of attributes, on which it
hangs or crashes where it is damaged. So a file is taken as what it is, bytes, in blocks of rows of words, and of each
block two CRC-32 are kept: of all rows combined by exclusive or, and of the sum of each row. Both passes run at the
speed of memory, and CRC-32, which does not, sees little of the bytes.

What is found: damage that is no longer than a row changes the combined row, and up to three flipped bits of a block
change that or a sum. One flipped bit is told for certain, other damage but for one case in 2³². Rows and their number
are odd, so that equal words, of which files have many, cancel neither in a row nor in a column.
"""

from __future__ import annotations

import io
import mmap
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import numpy.typing as npt

from autospec.store.items import create_dataset

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

SEAL = "checksums"
"""The dataset of checksums, the last thing in a file: one of each block, then what ``FOOTER_WORDS`` counts."""

WORD = np.dtype("<u8")
WORDS, ROWS = 1023, 63
ROW_BYTES = WORD.itemsize * WORDS
BLOCK_BYTES = ROWS * ROW_BYTES
FOOTER_WORDS = 3
"""The number of bytes before the dataset, the CRC-32 of all words before this one, and ``MARK``."""
LEAST_WORDS = 256
"""HDF5 puts less than 2,048 bytes into gaps between others, more at the end."""
MARK = int.from_bytes(b"AutoSeal", "little")

HEAD_BYTES = 48
"""Before the first block: the superblock, which has HDF5's own checksum, and changes while someone has the file open
for writing."""

Checksums = npt.NDArray[np.uint64]
File = io.RawIOBase | io.BufferedIOBase


class BrokenSeal(OSError):
    """Bytes of a file are not those that were written."""


def reserve_seal(file: h5py.File) -> int:
    """Make room for the checksums of a file, when all else is written.

    Args:
        file: The file, open for writing; nothing may be written into it afterwards.

    Returns:
        The size of the dataset, for ``fill_seal`` after the file is closed.
    """
    most_blocks = file.id.get_filesize() // BLOCK_BYTES + 2  # the dataset's own description is yet to come
    room = np.zeros(max(most_blocks + FOOTER_WORDS, LEAST_WORDS), dtype=WORD)
    file.flush()  # so that HDF5 puts nothing behind it: all that describes the file has its place
    dataset = create_dataset(file, SEAL, (), room)
    file.flush()
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, room)
    return room.nbytes


def fill_seal(content: memoryview | mmap.mmap, seal_bytes: int) -> None:
    """Write the checksums of a closed file into the room that is reserved for them, its last bytes.

    Args:
        content: The whole file, which is changed.
        seal_bytes: What ``reserve_seal`` returned.

    Raises:
        RuntimeError: Something was written behind the room.
    """
    covered = len(content) - seal_bytes
    words = np.zeros(seal_bytes // WORD.itemsize, dtype=WORD)
    for number, start in enumerate(range(HEAD_BYTES, covered, BLOCK_BYTES)):
        words[number] = block_checksum(content, start, min(BLOCK_BYTES, covered - start))
    words[-3] = covered
    words[-2] = zlib.crc32(words[:-2].data)
    words[-1] = MARK
    if any(content[covered:]):
        raise RuntimeError("the room for a file's checksums is not at its end")
    content[covered:] = words.tobytes()


def seal_file(path: Path, seal_bytes: int) -> None:
    """``fill_seal`` of a file on the disk.

    Args:
        path: The closed file.
        seal_bytes: What ``reserve_seal`` returned.
    """
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as content:
        fill_seal(content, seal_bytes)


def block_checksum(content: memoryview | bytearray | mmap.mmap, start: int, length: int) -> int:
    """Return the checksum of one block: in the upper half that of the combined row, in the lower that of the sums.

    Args:
        content: The bytes that the block is among.
        start: Where it begins.
        length: How many bytes it has: ``BLOCK_BYTES``, or fewer for the last, whose last row is filled up with zeros.
    """
    whole, rest = divmod(length, ROW_BYTES)
    rows = np.frombuffer(content, WORD, whole * WORDS, start).reshape(whole, WORDS)
    combined, sums = np.bitwise_xor.reduce(rows, axis=0), rows.sum(axis=1, dtype=WORD)
    if rest:
        row = np.zeros(ROW_BYTES, dtype=np.uint8)
        row[:rest] = np.frombuffer(content, np.uint8, rest, start + whole * ROW_BYTES)
        combined ^= row.view(WORD)
        sums = np.append(sums, row.view(WORD).sum(dtype=WORD))
    return zlib.crc32(combined.data) << 32 | zlib.crc32(sums.data)


def read_seal(stream: File) -> Checksums | None:
    """Return the words of a file's last dataset, or None where the file does not end in one.

    Args:
        stream: The file.

    Raises:
        BrokenSeal: It ends in one that is damaged, or is not as long as it was.
    """
    size = stream.seek(0, io.SEEK_END)
    footer = _read(stream, max(0, size - FOOTER_WORDS * WORD.itemsize), size)
    if len(footer) < FOOTER_WORDS * WORD.itemsize or int(np.frombuffer(footer, WORD)[-1]) != MARK:
        return None
    covered = int(np.frombuffer(footer, WORD)[-3])
    seal_bytes = size - covered
    if seal_bytes % WORD.itemsize or not FOOTER_WORDS * WORD.itemsize < seal_bytes < size - HEAD_BYTES:
        raise BrokenSeal("its length is not what it was")
    words = np.frombuffer(_read(stream, covered, size), WORD)
    blocks = -(-(covered - HEAD_BYTES) // BLOCK_BYTES)
    if zlib.crc32(words[:-2].data) != int(words[-2]) or len(words) < blocks + FOOTER_WORDS:
        raise BrokenSeal("its checksums are not those that were written")
    return words


def _read(stream: File, start: int, end: int) -> bytes:
    stream.seek(start)
    return stream.read(end - start) or b""


class SealedStream(io.RawIOBase):
    """A sealed file, read in blocks, each of which is checked before a byte of it is given out.

    Args:
        raw: The file.
        seal: What ``read_seal`` returned.
    """

    def __init__(self, raw: File, seal: Checksums) -> None:
        self._raw, self._seal = raw, seal
        self._covered = int(seal[-3])
        self._size = self._covered + seal.nbytes
        self._at = 0
        self._block = bytearray(BLOCK_BYTES)
        self._length = 0
        self._number = -1
        self.broken: BrokenSeal | None = None
        """Why a byte could not be given out: HDF5 does not pass the reason on."""

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, as every stream does."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        """Fill a buffer as far as the file goes; ``BrokenSeal`` where a block is damaged."""
        wanted = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        done = 0
        while done < len(wanted):
            part = self._part(self._at + done, len(wanted) - done)
            wanted[done : done + len(part)] = part
            done += len(part)
        self._at += done
        return done

    def _part(self, start: int, length: int) -> memoryview:
        """Some bytes from a place on, at most so many, that lie in one block."""
        if start < HEAD_BYTES:
            self._raw.seek(start)
            return memoryview(self._raw.read(min(length, HEAD_BYTES - start)) or b"")
        if start >= self._covered:
            return memoryview(self._seal.tobytes())[start - self._covered :][:length]
        number, offset = divmod(start - HEAD_BYTES, BLOCK_BYTES)
        if number != self._number:
            self._load(number)
        return memoryview(self._block)[offset : min(offset + length, self._length)]

    def _load(self, number: int) -> None:
        """Read and check a block."""
        self._number = -1
        start = HEAD_BYTES + number * BLOCK_BYTES
        self._length = min(BLOCK_BYTES, self._covered - start)
        self._raw.seek(start)
        got = self._raw.readinto(memoryview(self._block)[: self._length])
        if got != self._length or block_checksum(self._block, 0, self._length) != int(self._seal[number]):
            end = start + self._length - 1
            self.broken = BrokenSeal(f"its bytes {start} to {end} are not those that were written")
            raise self.broken
        self._number = number
