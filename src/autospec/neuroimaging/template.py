"""A template of maps and a mask, brought to the grid of the scans."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import Nifti1Image
from nilearn.image import resample_img
from nilearn.image.resampling import BoundingBoxError

from autospec.errors import AutoSpecError
from autospec.neuroimaging.scans import Mask, bright_voxels, grid_of, name_of, open_image, read_values, same_grid

log = logging.getLogger(__name__)

PROBABLE = 0.5
"""Where a mask holds probabilities, a voxel of so much is inside."""

FAINT = 0.05
"""A template's brain is where a map reaches this share of its largest value."""

LEAST_SHARE = 0.25
"""A mask by brightness that is smaller than this share of the template's brain has missed the brain."""


def mask_on(image: Any, grid: Any) -> Mask:
    """The nonzero voxels of a mask image on the scans' grid; from another one by the nearest voxel, which is logged.

    Args:
        image: A mask (x, y, z): a path or a nibabel image.
        grid: The image whose grid it is brought to.

    Returns:
        (x, y, z) True inside.

    Raises:
        AutoSpecError: It has no voxel, or none within the grid.
    """
    mask = open_image(image, "mask", 3)
    inside = _inside(np.nan_to_num(read_values(mask, "mask")), name_of(mask, "mask"))
    if not inside.any():
        raise AutoSpecError(f"mask {name_of(mask, 'mask')}: is zero everywhere, a mask without voxels")
    if not same_grid(mask, grid):
        inside = _nearest(inside, mask, grid, "mask")
    if not inside.any():
        raise AutoSpecError(f"mask {name_of(mask, 'mask')}: has no voxel within the scans' grid ({grid_of(grid)})")
    return inside


def _inside(voxels: npt.NDArray, name: str) -> Mask:
    """The nonzero voxels; of probabilities, those of a half or more, which is logged."""
    fractions = (voxels > 0) & (voxels < 1)
    if not fractions.any():
        return np.asarray(voxels != 0)
    log.warning("mask %s: holds fractions; voxels of %g or more are inside", name, PROBABLE)
    return np.asarray(voxels >= PROBABLE)


def common_mask(scans: list[Any]) -> Mask:
    """Voxels that reach the mean of the first volume in every scan; one volume is in memory at a time.

    Args:
        scans: nibabel images (x, y, z, time) on one grid.

    Returns:
        (x, y, z) True inside.

    Raises:
        AutoSpecError: No voxel is bright in all of them.
    """
    inside = bright_voxels(scans[0])
    for scan in scans[1:]:
        inside &= bright_voxels(scan)
    if not inside.any():
        raise AutoSpecError(f"the masks of {len(scans)} scans have no voxel in common; give a mask")
    return inside


def template_on(image: Any, grid: Any, mask: Mask) -> Nifti1Image:
    """The template on the scans' grid, zero wherever it holds nothing outside the mask.

    One of another shape or affine is resampled by nilearn (cubic splines), which is logged.

    Args:
        image: A template (x, y, z, maps): a path or a nibabel image.
        grid: The image whose grid it is brought to.
        mask: (x, y, z) Where it must be finite.

    Returns:
        The template (x, y, z, maps) on the grid.

    Raises:
        AutoSpecError: It has NaN in the mask, or lies outside the grid.
    """
    template = open_image(image, "template", 4)
    maps = read_values(template, "template")
    gaps = ~np.isfinite(maps).all(axis=3)
    maps = np.where(gaps[..., None], 0, maps) if gaps.any() else maps
    if not same_grid(template, grid):
        gaps = _nearest(gaps, template, grid, "template") if gaps.any() else np.zeros(grid.shape[:3], dtype=bool)
        maps = _resample(maps, template, grid, "template", "continuous")
    if (gaps & mask).any():
        count = int((gaps & mask).sum())
        raise AutoSpecError(f"template {name_of(template, 'template')}: NaN or infinite in {count} voxels of the mask")
    return Nifti1Image(maps, grid.affine)


def check_mask_size(mask: Mask, template: Any, n_volumes: int, found_by_brightness: bool) -> None:
    """Refuse a mask in which any map would fit, or one by brightness that has missed the brain.

    Args:
        mask: (x, y, z).
        template: The template on the same grid.
        n_volumes: Of the shortest scan.
        found_by_brightness: Whether nobody gave the mask.

    Raises:
        AutoSpecError: Says both sizes, and to give a mask.
    """
    size = int(mask.sum())
    if size <= n_volumes:
        raise AutoSpecError(
            f"the mask has {size} voxels, no more than a scan has volumes ({n_volumes}): any map would fit; give a mask"
        )
    strength = np.abs(np.asarray(template.dataobj)).max(axis=3)
    brain = int((strength > FAINT * strength.max()).sum())
    if found_by_brightness and size < LEAST_SHARE * brain:
        raise AutoSpecError(
            f"the mask by brightness has {size} voxels, the template's brain {brain}: it has missed the brain; "
            "give a mask"
        )


def _nearest(inside: Mask, image: Any, grid: Any, kind: str) -> Mask:
    there: Mask = _resample(inside.astype(np.uint8), image, grid, kind, "nearest") != 0
    return there


def _resample(voxels: npt.NDArray, image: Any, grid: Any, kind: str, interpolation: str) -> npt.NDArray:
    """Voxels at an image's places, at those of the grid; AutoSpecError where the two have no place in common."""
    log.info("%s %s (%s) resampled to %s", kind, name_of(image, kind), grid_of(image), grid_of(grid))
    try:
        moved = resample_img(
            Nifti1Image(voxels, image.affine),
            target_affine=grid.affine,
            target_shape=grid.shape[:3],
            interpolation=interpolation,
            force_resample=True,
            copy_header=True,
        )
    except BoundingBoxError as error:
        raise AutoSpecError(
            f"{kind} {name_of(image, kind)}: lies outside the scans' grid ({grid_of(image)} against {grid_of(grid)})"
        ) from error
    return np.asarray(moved.dataobj)
