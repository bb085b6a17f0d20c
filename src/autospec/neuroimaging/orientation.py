"""Which side of a scan is left: what its header says, and what the template says of the scan itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import Nifti1Image

from autospec.errors import AutoSpecError
from autospec.neuroimaging.normalisation import subtract_volume_means

ORIENTATIONS = ("RAS", "LAS", "template")
"""What a user may say of scans whose headers do not: voxels run to the right, to the left, or as the template's."""

SAME_FORM_MM = 0.1

LEAST_OVERLAP = 0.8
"""The share of a mask that must have a mirrored place within the image."""

Matrix = npt.NDArray[np.float64]


def is_oriented(image: Any) -> bool:
    """Whether a header says where its voxels lie: a NIfTI with an sform or a qform code above 0.

    Args:
        image: A nibabel image.

    Returns:
        True also for formats without such codes.
    """
    codes = [int(image.header[name]) for name in ("sform_code", "qform_code") if name in image.header]
    return not codes or any(codes)


def forms_differ(image: Any) -> bool:
    """Whether sform and qform are both given and put voxels at different places; the sform is what is used.

    Args:
        image: A nibabel image.

    Returns:
        True where a corner lies more than a tenth of a mm apart.
    """
    if not hasattr(image, "get_sform") or not (int(image.header["sform_code"]) and int(image.header["qform_code"])):
        return False
    return not np.allclose(image.get_sform(), image.get_qform(), atol=SAME_FORM_MM)


def orient(image: Any, orientation: str | None, template: Any) -> Any:
    """The image with places for its voxels, where its header has none.

    Args:
        image: A nibabel image.
        orientation: One of ORIENTATIONS, used only where the header does not say; None refuses such an image.
        template: The image whose places are meant by ``template``.

    Returns:
        The image itself, or one with the same voxels under another affine.

    Raises:
        AutoSpecError: Nothing says which side is left, or the template has other voxels.
    """
    if is_oriented(image):
        return image
    name = image.get_filename() or "the scan in memory"
    if orientation is None:
        raise AutoSpecError(
            f"scan {name}: sform and qform codes are both 0, so that left and right are unknown; "
            f"give orientation ({', '.join(ORIENTATIONS)})"
        )
    if orientation == "template":
        if image.shape[:3] != template.shape[:3]:
            raise AutoSpecError(
                f"scan {name}: has {image.shape[:3]} voxels, the template {template.shape[:3]}; orientation=template "
                "needs as many"
            )
        affine = template.affine
    else:
        affine = np.diag([*image.header.get_zooms()[:3], 1.0])
        affine[0, 0] *= 1 if orientation == "RAS" else -1
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(image.shape[:3]) - 1) / 2)
    oriented = Nifti1Image(image.dataobj, affine, image.header)
    oriented.set_sform(affine, code=2)
    oriented.file_map = image.file_map
    return oriented


def mirrored(maps: npt.NDArray, mask: npt.NDArray[np.bool_], affine: Matrix) -> Matrix:
    """Maps as they would be with left and right exchanged (x → −x, by the nearest voxel).

    Args:
        maps: (x, y, z, maps).
        mask: (x, y, z).
        affine: (4, 4) Voxel indices to mm.

    Returns:
        (maps, voxels of the mask), zero where the mirrored place lies outside the image; NaN where so much of it does
        that the mirrored maps cannot be compared.
    """
    places = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    places[:, 0] *= -1
    voxels = np.rint((places - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    inside = ((voxels >= 0) & (voxels < mask.shape)).all(axis=1)
    if inside.mean() < LEAST_OVERLAP:
        return np.full((maps.shape[3], len(places)), np.nan)
    values = np.zeros((maps.shape[3], len(places)))
    values[:, inside] = maps[tuple(voxels[inside].T)].T
    return values


def closeness(data: npt.NDArray, references: npt.NDArray) -> float:
    """How much of the references a scan can make up: their mean multiple correlation with its volumes.

    On ten real scans it was 0.61 for the template and 0.58 for the mirrored one, and the other way round once the
    scans were mirrored, in each of them.

    Args:
        data: (time, voxels).
        references: (maps, voxels).

    Returns:
        From 0 to 1; NaN where the references are NaN.
    """
    if not np.isfinite(references).all():
        return float("nan")
    volumes = subtract_volume_means(np.asarray(data, dtype=np.float64))
    centred = references - references.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    shared = (centred[norms > 0] / norms[norms > 0, None]) @ volumes.T
    weights = np.linalg.lstsq(volumes @ volumes.T, shared.T, rcond=1e-10)[0].T
    return float(np.sqrt(np.clip((weights * shared).sum(axis=1), 0, 1)).mean())
