"""Images of a small make-believe cohort."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

SHAPE = (8, 9, 7)
AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])


def write_image(file: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """An image whose header says 2 s between volumes."""
    image = nibabel.Nifti1Image(values.astype(np.float32), affine)
    image.header.set_xyzt_units("mm", "sec")
    if values.ndim == 4:
        image.header.set_zooms((6, 6, 6, 2.0))
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, file)
    return file


def scan(seed: int, volumes: int = 30) -> np.ndarray:
    """A scan (x, y, z, time) in which three blobs come and go."""
    rng = np.random.default_rng(seed)
    inside = np.zeros(SHAPE, dtype=bool)
    inside[1:-1, 1:-1, 1:-1] = True
    signal = 30 * blobs() @ rng.normal(size=(3, volumes)) + rng.normal(size=(*SHAPE, volumes))
    return signal + 1000 * inside[..., None]


def blobs() -> np.ndarray:
    """(x, y, z, 3)"""
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    centres = np.array([[2, 3, 3], [5, 5, 3], [3, 6, 4]])
    return np.exp(-((places[..., None, :] - centres) ** 2).sum(-1) / 3)


def scan_of(folder: Path, number: int) -> Path:
    """The scan of a subject."""
    return folder / f"sub-0{number}" / "func" / f"sub-0{number}_task-rest_bold.nii.gz"
