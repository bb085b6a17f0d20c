"""Opening scans, masks and templates: what is wrong with a file is said by name, before anything is computed."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.affines import obliquity
from nibabel.arrayproxy import is_proxy

from autospec.errors import AutoSpecError
from autospec.foreign.files import check_claim, check_gzip, file_bytes

ImageLike = Any
"""A path, or an image that nibabel has loaded."""

Mask = npt.NDArray[np.bool_]

log = logging.getLogger(__name__)

PACKED = (".gz", ".bz2", ".mgz", ".zst")

SAME_PLACE_MM = 1e-3

NEGATIVE_SHARE = 0.25
"""Volumes of whose brightness more is below zero are no pictures of a brain; splines leave a little."""

EARLY_VOLUMES = 8
"""So many volumes are looked at: one alone may be above zero nearly everywhere by chance."""


def as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """The images as a list; a single one is a list of one.

    Args:
        images: One image or path, or several.

    Returns:
        A list of one or more.

    Raises:
        AutoSpecError: Nothing was given.
    """
    single = isinstance(images, str | PathLike) or hasattr(images, "dataobj")
    listed = [images] if single else list(images)
    if not listed:
        raise AutoSpecError("no images were given")
    return listed


def name_of(image: ImageLike, kind: str = "scan") -> str:
    """What an image is called in messages: its path, where it has one.

    Args:
        image: A path or a nibabel image.
        kind: What it is, for an image without a file.

    Returns:
        The path, or words for an image in memory.
    """
    if isinstance(image, str | PathLike):
        return str(image)
    return image.get_filename() or f"the {kind} in memory"


def load_image(image: ImageLike, kind: str) -> Any:
    """The image, its voxels not yet read.

    Args:
        image: A path or a nibabel image.
        kind: What it is in messages: scan, mask, template.

    Returns:
        A nibabel image.

    Raises:
        AutoSpecError: It is missing or no image.
    """
    if not isinstance(image, str | PathLike) and not hasattr(image, "dataobj"):
        raise AutoSpecError(f"{kind}: a path or a nibabel image is needed, not a {type(image).__name__}")
    name = name_of(image, kind)
    if isinstance(image, str | PathLike):
        with _readable(kind, name):
            file_bytes(Path(image))
            image = nibabel.load(image)
            _check_claim(image)
    return image


def open_image(image: ImageLike, kind: str, dimensions: int) -> Any:
    """An image of so many dimensions, its voxels not yet read.

    Args:
        image: A path or a nibabel image.
        kind: What it is in messages.
        dimensions: How many it must have.

    Returns:
        A nibabel image.

    Raises:
        AutoSpecError: It is missing, no image, or has another number of dimensions.
    """
    image = load_image(image, kind)
    if len(image.shape) != dimensions:
        wanted = {3: "(x, y, z)", 4: "(x, y, z, time)" if kind == "scan" else "(x, y, z, maps)"}[dimensions]
        raise AutoSpecError(
            f"{kind} {name_of(image, kind)}: has {len(image.shape)} dimensions {image.shape}, not {wanted}"
        )
    return image


def open_scan(image: ImageLike) -> Any:
    """A 4-D image of 2 volumes or more, its voxels not yet read.

    Args:
        image: A path or a nibabel image.

    Returns:
        A nibabel image (x, y, z, time).

    Raises:
        AutoSpecError: It is anything else.
    """
    scan = open_image(image, "scan", 4)
    if scan.shape[3] < 2:
        raise AutoSpecError(f"scan {name_of(scan)}: has {scan.shape[3]} volume(s); at least 2 are needed")
    return scan


def read_values(image: Any, kind: str = "scan") -> npt.NDArray[np.floating]:
    """All voxels, in float32 where that holds them exactly, else float64.

    Args:
        image: A nibabel image.
        kind: What it is in messages.

    Returns:
        Its values with ``scl_slope`` and ``scl_inter`` applied.

    Raises:
        AutoSpecError: The file is truncated or damaged.
    """
    with _readable(kind, name_of(image, kind)):
        _check_checksum(image)
        voxels = np.asanyarray(image.dataobj)
        return voxels.astype(np.result_type(voxels.dtype, np.float32), copy=False)


def bright_voxels(scan: Any) -> Mask:
    """Voxels that reach the mean of the first volume; one that is not finite counts as 0 and is not in.

    GIFT's mask, kept by hand: nilearn's ``compute_epi_mask`` gives others, and with them other components.

    Args:
        scan: A nibabel image (x, y, z, time).

    Returns:
        (x, y, z) True inside.

    Raises:
        AutoSpecError: The first volume has no finite value, or much of it is negative.
    """
    with _readable("scan", name_of(scan)):
        early = np.asarray(scan.dataobj[..., :EARLY_VOLUMES], dtype=np.float64)
    first = early[..., 0]
    finite = np.isfinite(first)
    if not finite.any():
        raise AutoSpecError(f"scan {name_of(scan)}: the first volume has no finite value")
    _check_mean(np.nan_to_num(early, nan=0, posinf=0, neginf=0), name_of(scan))
    # left out of the mean, a background of NaN would raise it to the brain's own and cut half the brain away
    filled = np.where(finite, first, 0)
    return finite & (filled >= filled.mean())


def _check_mean(volumes: npt.NDArray, name: str) -> None:
    """AutoSpecError for volumes without their mean over time, whose brightness shows no brain."""
    negative, total = -volumes[volumes < 0].sum(), np.abs(volumes).sum()
    if negative > NEGATIVE_SHARE * total:
        raise AutoSpecError(
            f"scan {name}: {negative / total:.0%} of its first volumes is negative, as where the temporal mean has "
            "been taken out (a filtered derivative); brightness does not show the brain there: give a mask"
        )


def same_grid(one: Any, other: Any) -> bool:
    """Whether two images have the same voxels: as many along each axis, at the same places to a thousandth of a mm.

    Args:
        one: A nibabel image.
        other: A nibabel image.

    Returns:
        True where shape and affine agree.
    """
    return one.shape[:3] == other.shape[:3] and np.allclose(one.affine, other.affine, rtol=0, atol=SAME_PLACE_MM)


def check_same_grid(scan: Any, fitted: Any, fitted_name: str) -> None:
    """Refuse a scan whose voxels are others than those of the image that it must share a mask with.

    Args:
        scan: A nibabel image.
        fitted: The image whose grid it must have.
        fitted_name: What that is called in the message.

    Raises:
        AutoSpecError: The grids differ; the message names both.
    """
    if not same_grid(scan, fitted):
        raise AutoSpecError(
            f"scan {name_of(scan)}: its grid ({grid_of(scan)}) differs from that of {fitted_name} "
            f"({grid_of(fitted)}); resample the scans to one grid first"
        )


def grid_of(image: Any) -> str:
    """A grid in words: shape, voxel size and position of the first voxel.

    Args:
        image: A nibabel image.

    Returns:
        Such as ``17 × 20 × 17 voxels of 10 × 10 × 10 mm from (-80, -112, -70)``.
    """
    sizes = " × ".join(f"{size:g}" for size in np.linalg.norm(image.affine[:3, :3], axis=0).round(3))
    origin = ", ".join(f"{place:g}" for place in image.affine[:3, 3].round(3))
    shape = " × ".join(map(str, image.shape[:3]))
    return f"{shape} voxels of {sizes} mm from ({origin}), {_direction(image)}"


def _direction(image: Any) -> str:
    """Where voxels run to (``RAS``), and by how much they are turned against the axes."""
    codes = "".join(str(code) for code in nibabel.aff2axcodes(image.affine))
    turned = float(np.rad2deg(obliquity(image.affine)).max())
    return codes if turned < 0.01 else f"{codes} turned by {turned:.2f}°"


def _check_claim(image: Any) -> None:
    """AutoSpecError where the header claims more voxels than the file can hold; nothing is allocated before."""
    file = _file_of(image)
    if file is None:
        return
    if any(length < 1 for length in image.shape):
        raise ValueError(f"its header says {' × '.join(map(str, image.shape))} voxels")
    is_packed, stored = file.suffix in PACKED, file_bytes(file)
    check_claim(file, _bytes_by_header(image), stored, is_packed)
    if not is_packed:
        _note_rest(file, _bytes_by_header(image), stored)


def _check_checksum(image: Any) -> None:
    """AutoSpecError where a gzip file's checksum is another, or it ends early: reading voxels alone does not tell."""
    file = _file_of(image)
    if file is not None and file.suffix == ".gz":
        status = file.stat()
        _note_rest(file, _bytes_by_header(image), check_gzip(file, status.st_size, status.st_mtime_ns))


def _file_of(image: Any) -> Path | None:
    """The file that an image's voxels are yet to be read from."""
    file = getattr(getattr(image, "file_map", {}).get("image"), "filename", None)
    return None if file is None or not is_proxy(image.dataobj) else Path(file)


def _bytes_by_header(image: Any) -> int:
    """The bytes that an image's header explains, itself among them."""
    proxy = image.dataobj
    return math.prod(map(int, image.shape)) * int(proxy.dtype.itemsize) + int(getattr(proxy, "offset", 0))


def _note_rest(file: Path, claimed: int, held: int) -> None:
    if held > claimed:
        log.warning("%s: its header explains %d of %d bytes; the rest is not read", file, claimed, held)


@contextmanager
def _readable(kind: str, name: str) -> Iterator[None]:
    try:
        yield
    except AutoSpecError as error:
        text = str(error)
        raise AutoSpecError(f"{kind} {text}" if text.startswith(name) else f"{kind} {name}: {text}") from error
    except Exception as error:  # a damaged header raises whatever its damage leads to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise AutoSpecError(f"{kind} {name}: is truncated, damaged or no image ({reason})") from error
