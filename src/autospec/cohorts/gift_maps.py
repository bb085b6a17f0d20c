"""The maps of GIFT's people: volumes, or rows of .mat files whose voxels lie in the mask of the analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.cohorts.mat_files import read_mat
from autospec.cohorts.options import Options
from autospec.cohorts.source_files import Source
from autospec.errors import AutoSpecError
from autospec.neuroimaging.scans import load_image, open_image, read_values

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MASKS = ("*Mask.nii", "*Mask.nii.gz", "*Mask.img")
"""What GIFT calls the mask that it writes beside its results."""


def is_mat(file: Path) -> bool:
    """Whether a file is MATLAB's."""
    return file.suffix == ".mat"


def find_mask(options: Options) -> Path | None:
    """The mask that the voxels of .mat files lie in: the one that is named, or the only one in the folder."""
    if options.mask is not None:
        return options.mask
    found = [file for pattern in MASKS for file in sorted(options.folder.glob(pattern))]
    return found[0] if len(found) == 1 else None


def find_maps(timecourses: Path, mask: Path | None) -> Path | None:
    """Where a person's maps are: in the volumes beside the time-courses, or, given a mask, in the same .mat file."""
    if is_mat(timecourses):
        return None if mask is None else timecourses
    name = timecourses.name.replace("_timecourses_ica_", "_component_ica_")
    file = timecourses.with_name(name)
    return file if name != timecourses.name and file.is_file() else None


def read_image(file: Path) -> Array:
    """What an image holds; AutoSpecError naming one that is damaged."""
    return read_values(load_image(file, "image"), "image").astype(np.float64)


def read_image_maps(file: Path) -> Array:
    """(components, voxels) of a volume (x, y, z, components), whose voxels count with z fastest."""
    volume = read_values(open_image(file, "maps", 4), "maps").astype(np.float64)
    return volume.reshape(-1, volume.shape[3]).T


def reorder_voxels(maps: Array, mask: Path, file: Path) -> Array:
    """Maps (components, voxels) of a .mat file with voxels in our order: MATLAB counts with x fastest, we with z."""
    inside = _inside(mask)
    if maps.shape[1] != inside.sum():
        raise AutoSpecError(f"{file}: maps of {maps.shape[1]} voxels, but the mask {mask} has {int(inside.sum())}")
    places = np.arange(inside.size).reshape(inside.shape)
    return maps[:, np.argsort(places.ravel(order="F")[inside.ravel(order="F")])]


def common_grid(sources: list[Source], options: Options) -> tuple[Mask, Array] | None:
    """(mask, affine) of everybody's maps; None unless all have maps. The whole volume, or the mask of .mat files."""
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
