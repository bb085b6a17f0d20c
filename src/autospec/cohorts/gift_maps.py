"""The maps of GIFT's subjects: volumes, or rows of .mat files whose voxels lie in the mask of the analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.cohorts.mat_files import read_mat
from autospec.cohorts.options import Options
from autospec.cohorts.source_files import Source
from autospec.errors import AutoSpecError
from autospec.neuroimaging.scans import load_image, open_image, read_values

Mask = npt.NDArray[np.bool_]

MASKS = ("*Mask.nii", "*Mask.nii.gz", "*Mask.img")
"""What GIFT calls the mask that it writes beside its results."""


def is_mat(file: Path) -> bool:
    """Whether a file is MATLAB's.

    Args:
        file: A file's path.

    Returns:
        True for ``.mat``.
    """
    return file.suffix == ".mat"


def find_mask(options: Options) -> Path | None:
    """The mask that the voxels of .mat files lie in: the one that is named, or the only one in the folder.

    Args:
        options: Names the mask, or its folder holds it.

    Returns:
        The file, or None where there is none or several.
    """
    if options.mask is not None:
        return options.mask
    masks = [file for pattern in MASKS for file in sorted(options.folder.glob(pattern))]
    return masks[0] if len(masks) == 1 else None


def find_maps(timecourses: Path, mask: Path | None) -> Path | None:
    """Where a subject's maps are: in the volumes beside the time-courses, or, given a mask, in the same .mat file.

    Args:
        timecourses: The file of a subject's time-courses.
        mask: GIFT's mask, where it is at hand.

    Returns:
        The file, or None.
    """
    if is_mat(timecourses):
        return None if mask is None else timecourses
    name = timecourses.name.replace("_timecourses_ica_", "_component_ica_")
    file = timecourses.with_name(name)
    return file if name != timecourses.name and file.is_file() else None


def read_image(file: Path) -> npt.NDArray[np.float64]:
    """What an image holds, in float64.

    Args:
        file: A NIfTI file.

    Returns:
        Its values.

    Raises:
        AutoSpecError: It is damaged.
    """
    return read_values(load_image(file, "image"), "image").astype(np.float64)


def read_image_maps(file: Path) -> npt.NDArray[np.float64]:
    """The maps of a volume, whose voxels count with z fastest.

    Args:
        file: A NIfTI file (x, y, z, components).

    Returns:
        (components, voxels).

    Raises:
        AutoSpecError: It is damaged, or not 4-D.
    """
    volume = read_values(open_image(file, "maps", 4), "maps").astype(np.float64)
    return volume.reshape(-1, volume.shape[3]).T


def reorder_voxels(maps: npt.NDArray[np.float64], mask: Path, file: Path) -> npt.NDArray[np.float64]:
    """Maps of a .mat file with voxels in our order: MATLAB counts with x fastest, we with z.

    Args:
        maps: (components, voxels) in MATLAB's order.
        mask: The mask of the analysis.
        file: Where the maps come from, for messages.

    Returns:
        (components, voxels) in our order.

    Raises:
        AutoSpecError: The mask has another number of voxels.
    """
    inside = _inside(mask)
    if maps.shape[1] != inside.sum():
        raise AutoSpecError(f"{file}: maps of {maps.shape[1]} voxels, but the mask {mask} has {int(inside.sum())}")
    places = np.arange(inside.size).reshape(inside.shape)
    return maps[:, np.argsort(places.ravel(order="F")[inside.ravel(order="F")])]


def common_grid(sources: list[Source], options: Options) -> tuple[Mask, npt.NDArray[np.float64]] | None:
    """The grid of every subject's maps: the whole volume, or the mask of .mat files.

    Args:
        sources: Every subject's files.
        options: Names the mask, or its folder holds it.

    Returns:
        Mask (x, y, z) and affine (4, 4); None unless all have maps.

    Raises:
        AutoSpecError: Subjects have maps on different grids, or the mask is another than that of the analysis.
    """
    if not sources or any(source.maps is None for source in sources):
        return None
    if any(source.maps == source.file for source in sources):
        mask = find_mask(options)
        assert mask is not None
        _check_voxels(mask, options.folder)
        return _inside(mask), np.asarray(open_image(mask, "mask", 3).affine)
    images = [(source, load_image(source.maps, "maps")) for source in sources]
    first, image = images[0]
    for source, other in images[1:]:
        if other.shape != image.shape or not np.allclose(other.affine, image.affine, atol=1e-3):
            raise AutoSpecError(f"{source.maps}: subject {source.id} has maps on another grid than {first.id}")
    return np.ones(image.shape[:3], dtype=bool), np.asarray(image.affine)


def _inside(mask: Path) -> Mask:
    inside: Mask = np.nan_to_num(read_values(open_image(mask, "mask", 3), "mask")) != 0
    if not inside.any():
        raise AutoSpecError(f"mask {mask}: is zero everywhere, a mask without voxels")
    return inside


def _check_voxels(mask: Path, folder: Path) -> None:
    """AutoSpecError where the results of the group analysis say that their voxels are others than the mask's."""
    for file in sorted(folder.glob("*_ica.mat")):
        indices = read_mat(file).get("mask_ind")
        if indices is not None and not np.array_equal(
            np.sort(np.ravel(indices)) - 1, np.flatnonzero(_inside(mask).ravel(order="F"))
        ):
            raise AutoSpecError(f"mask {mask}: has other voxels than mask_ind in {file.name}; name GIFT's own mask")
