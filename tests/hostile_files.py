"""Files that a reader must refuse at once, and functions that no reader should be."""

from __future__ import annotations

import gzip
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
from scipy.io import savemat


def die(path: Path, signal: int) -> None:
    """End this process as a parser that runs wild."""
    os.kill(os.getpid(), signal)


def wait(path: Path) -> None:
    """Never end."""
    while True:
        time.sleep(1)


def allocate(path: Path) -> int:
    """Take far more memory than a file explains."""
    return len(bytearray(2**40))


def fail(path: Path) -> None:
    """Raise what no reader expects."""
    raise ZeroDivisionError("one line\nand another")


def pipe(path: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(path)


def device(path: Path) -> None:
    """A device that never ends."""
    path.symlink_to("/dev/zero")


def gzip_bomb(path: Path) -> None:
    """200 MB of zeros in 200 kB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        for _ in range(200):
            file.write(packer.compress(b"0" * 2**20))
        file.write(packer.flush())


def wide_table(path: Path) -> None:
    """A table with a million columns."""
    path.write_text("\t".join(["c"] * 1_000_000) + "\n")


def deep_json(path: Path) -> None:
    """Lists within lists."""
    path.write_text("[" * 200_000)


def nifti(path: Path, *dimensions: int) -> None:
    """An image of 64 voxels whose header claims others."""
    plain = path.with_name("plain.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), plain)
    content = bytearray(plain.read_bytes())
    struct.pack_into("<8h", content, 40, len(dimensions), *dimensions, *[1] * (7 - len(dimensions)))
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else content)


def mat_claim(path: Path) -> None:
    """A MATLAB file of version 5 whose variable claims 4 GB."""
    savemat(path, {"tc": np.zeros((5, 4))})
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 132, 0xFFFFFFF0)
    path.write_bytes(content)


def mat_bomb(path: Path) -> None:
    """A MATLAB file of version 5 whose packed variable claims 4 GB."""
    savemat(path, {"tc": np.zeros((5, 4))})
    packed = zlib.compress(struct.pack("<II", 14, 0xFFFFFFF0) + bytes(2**20))
    path.write_bytes(path.read_bytes()[:128] + struct.pack("<II", 15, len(packed)) + packed)


def unwritten(path: Path) -> None:
    """An HDF5 file whose dataset claims 4 TB, of which none was written."""
    with h5py.File(path, "w") as file:
        file.create_dataset("tc", (2**20, 2**20), "float32", chunks=(1024, 1024), compression="gzip")


def link(path: Path) -> None:
    """An HDF5 file with a link into another."""
    with h5py.File(path, "w") as file:
        file["tc"] = h5py.ExternalLink("/elsewhere.h5", "x")


def borrowed(path: Path) -> None:
    """An HDF5 file whose values lie in another."""
    with h5py.File(path, "w") as file:
        file.create_dataset("tc", (10,), "u1", external=[("/etc/hostname", 0, 10)])


def circle(path: Path) -> None:
    """An HDF5 file with a folder that lies in itself."""
    with h5py.File(path, "w") as file:
        folder = file.create_group("tc")
        folder["again"] = folder


def circle_of_references(path: Path) -> None:
    """A struct array of version 7.3 that refers to itself."""
    with h5py.File(path, "w") as file:
        folder = file.create_group("tc")
        field = folder.create_dataset("again", (1, 1), h5py.ref_dtype)
        field[0, 0] = folder.ref


Make = Callable[[Path], None]
