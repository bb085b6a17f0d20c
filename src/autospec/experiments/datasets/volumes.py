"""Maps of the brain from NIfTI files, all on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.cohorts.exclusions import Account
from autospec.errors import AutoSpecError

FINEST_MM, COARSEST_MM = 1, 20

OTHER_SCALE = 10.0
"""A map whose largest value is so many times larger or smaller than most was scaled otherwise."""

SUM_ERROR = 0.05
"""How far from 1 probabilities of tissues may add up to."""


class Unreadable(AutoSpecError):
    """A map that cannot be read, whose subject is left out."""


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

    A file with components in a fourth dimension gives their maximum; tissue probabilities, whose maximum is no map,
    are an error. A map on another grid is an error too: which of the two is meant cannot be told here. Voxels that are
    NaN in most maps are background and become 0. A map of another scale than most (0 to 255 among 0 to 1) is left out.

    Args:
        files: A file per subject.
        ids: The subjects' ids.
        resolution_mm: Voxel size to resample to; None for as they are.
        account: Takes a line for every file that cannot be read.

    Returns:
        Maps (readable, x, y, z), and which files could be read (n,).

    Raises:
        AutoSpecError: No map can be read, one lies on another grid, or one holds tissue probabilities.
    """
    maps: list[Map] = []
    readable = np.zeros(len(files), dtype=bool)
    grid: tuple[str, tuple[int, ...], Affine] | None = None
    for index, (file, subject) in enumerate(zip(files, ids, strict=True)):
        try:
            values, affine = _read(file)
        except Unreadable as error:
            account.drop(subject, f"{file.name} cannot be read: {error}")
            continue
        # the first map that can be read is the measure of the others
        grid = grid or (file.name, values.shape, affine)
        if values.shape != grid[1] or not np.allclose(affine, grid[2], atol=1e-3):
            raise AutoSpecError(
                f"{file}: subject {subject} has a map of {values.shape} voxels on another grid than {grid[0]} {grid[1]}"
            )
        maps.append(values)
        readable[index] = True
    if not maps or grid is None:
        raise AutoSpecError(f"{files[0].parent}: none of {len(files)} maps can be read")
    whole = _without_background(np.stack(maps), account)
    like = _of_one_scale(whole, [subject for subject, read in zip(ids, readable, strict=True) if read], account)
    readable[np.flatnonzero(readable)[~like]] = False
    if resolution_mm is None:
        return whole[like], readable
    return np.stack([resample(values, grid[2], resolution_mm) for values in whole[like]]), readable


def _without_background(maps: Map, account: Account) -> Map:
    """Maps (n, x, y, z) with 0 in voxels that have no value in most of them."""
    gaps = ~np.isfinite(maps)
    background = gaps.mean(axis=0) > 0.5
    if not background.any():
        return maps
    account.note(f"maps: {int(background.sum())} voxels are NaN in most maps, taken as background (0)")
    return np.where(gaps & background, 0, maps)


def _of_one_scale(maps: Map, ids: Sequence[str], account: Account) -> npt.NDArray[np.bool_]:
    """(n,) Whose values reach as far as those of most; the account names the others."""
    highest = np.nanmax(np.abs(np.where(np.isfinite(maps), maps, np.nan)).reshape(len(maps), -1), axis=1)
    usual = float(np.median(highest))
    if usual == 0:
        return np.ones(len(maps), dtype=bool)
    like = (highest < OTHER_SCALE * usual) & (highest > usual / OTHER_SCALE)
    for subject, reach in zip(np.array(ids)[~like], highest[~like], strict=True):
        account.drop(str(subject), f"values of its map reach {reach:.3g}, those of most {usual:.3g}: another scale")
    return np.asarray(like)


def _read(file: Path) -> tuple[Map, Affine]:
    from autospec.neuroimaging.scans import load_image, read_values

    try:
        image = load_image(file, "map")
        values = read_values(image, "map").astype(np.float32, copy=False)
    except AutoSpecError as error:
        raise Unreadable(str(error)) from error
    if values.ndim == 4:
        _check_tissues(values, file)
        values = values.max(axis=3)
    if values.ndim != 3:
        raise Unreadable(f"it has {values.ndim} dimensions, a map has 3")
    return values, np.asarray(image.affine, dtype=np.float64)


def _check_tissues(values: Map, file: Path) -> None:
    """AutoSpecError for several volumes that add up to 1, as probabilities of tissues do."""
    count = values.shape[3]
    if count == 1 or values.min() < 0 or values.max() > 1 + SUM_ERROR:
        return
    total = values.sum(axis=3)
    inside = total[total > 0.5]
    if inside.size and abs(float(np.median(inside)) - 1) < SUM_ERROR:
        raise AutoSpecError(
            f"{file}: holds {count} probabilities of tissues, which add up to 1; their maximum is no map: write the "
            "one that is meant, such as grey matter, to a file of its own"
        )


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
    # a little more, so that rounding of the corners does not lose the last plane
    shape = np.floor((high_mm - low_mm) / resolution_mm + 1e-6).astype(int) + 1
    to_index = np.linalg.inv(affine[:3, :3])
    start = to_index @ (low_mm - affine[:3, 3])
    moved: Map = affine_transform(
        np.asarray(values, dtype=np.float32), to_index * resolution_mm, start, tuple(shape), order=1, mode="nearest"
    )
    return moved
