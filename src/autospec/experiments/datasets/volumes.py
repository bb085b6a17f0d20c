"""Maps of the brain from NIfTI files, all on one grid."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.cohorts.exclusions import Account
from autospec.errors import AutoSpecError

FINEST_MM, COARSEST_MM = 1, 20

Map = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]


def check_resolution(resolution_mm: int | None) -> None:
    """Refuse a voxel size that no map of a brain has.

    Args:
        resolution_mm: ``dataset.resolution_mm``.

    Raises:
        AutoSpecError: Names the allowed sizes.
    """
    if resolution_mm is not None and not FINEST_MM <= resolution_mm <= COARSEST_MM:
        raise AutoSpecError(
            f"dataset.resolution_mm={resolution_mm}: must be from {FINEST_MM} to {COARSEST_MM}, or null"
        )


def read_maps(
    files: Sequence[Path], ids: Sequence[str], resolution_mm: int | None, account: Account
) -> tuple[Map, npt.NDArray[np.bool_]]:
    """Read the maps of files on one grid; the account names the files that cannot be read.

    A file with components in a fourth dimension gives their maximum. A map on another grid is an error: which of the
    two is meant cannot be told here.

    Args:
        files: A file per subject.
        ids: The subjects' ids.
        resolution_mm: Voxel size to resample to; None for as they are.
        account: Takes a line for every file that cannot be read.

    Returns:
        Maps (readable, x, y, z), and which files could be read (n,).

    Raises:
        AutoSpecError: No map can be read, or one lies on another grid.
    """
    maps: list[Map] = []
    readable = np.zeros(len(files), dtype=bool)
    grid: tuple[str, tuple[int, ...], Affine] | None = None
    for index, (file, subject) in enumerate(zip(files, ids, strict=True)):
        try:
            values, affine = _read(file)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            account.drop(subject, f"{file.name} cannot be read: {' '.join(str(error).split())}")
            continue
        grid = grid or (file.name, values.shape, affine)
        if values.shape != grid[1] or not np.allclose(affine, grid[2], atol=1e-3):
            raise AutoSpecError(
                f"{file}: subject {subject} has a map of {values.shape} voxels on another grid than {grid[0]} {grid[1]}"
            )
        maps.append(values if resolution_mm is None else resample(values, affine, resolution_mm))
        readable[index] = True
    if not maps:
        raise AutoSpecError(f"{files[0].parent}: none of {len(files)} maps can be read")
    return np.stack(maps), readable


def _read(file: Path) -> tuple[Map, Affine]:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        image = nibabel.load(file)
        values = np.asarray(image.dataobj, dtype=np.float32)
    except ImageFileError as error:
        raise ValueError(str(error)) from error
    if values.ndim == 4:
        values = values.max(axis=3)
    if values.ndim != 3:
        raise ValueError(f"it has {values.ndim} dimensions, a map has 3")
    return values, np.asarray(image.affine, dtype=np.float64)


def resample(values: Map, affine: Affine, resolution_mm: int) -> Map:
    """Bring a map to a grid of cubic voxels of this size over the same box, by linear interpolation.

    Kept by hand: nilearn's ``resample_img`` gives the same numbers inside the box, but fills a voxel with zero that
    rounding puts 1e-15 beyond its edge, and so loses whole planes of some grids.

    Args:
        values: (x, y, z).
        affine: (4, 4) Voxel indices to mm.
        resolution_mm: Voxel size.

    Returns:
        (x', y', z').
    """
    from scipy.ndimage import affine_transform

    last = np.array(values.shape) - 1
    corners = np.array(list(product(*zip((0, 0, 0), last, strict=True))))
    corners_mm = corners @ affine[:3, :3].T + affine[:3, 3]
    low_mm, high_mm = corners_mm.min(axis=0), corners_mm.max(axis=0)
    shape = np.floor((high_mm - low_mm) / resolution_mm + 1e-6).astype(int) + 1
    to_index = np.linalg.inv(affine[:3, :3])
    start = to_index @ (low_mm - affine[:3, 3])
    moved: Map = affine_transform(
        np.asarray(values, dtype=np.float32), to_index * resolution_mm, start, tuple(shape), order=1, mode="nearest"
    )
    return moved
