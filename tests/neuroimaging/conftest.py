"""What the tests of neuroimaging share: the reference numbers, and a small simulated cohort of NIfTI files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

SHAPE = (12, 14, 11)
AFFINE = np.array([[-4.0, 0, 0, 24], [0, 4, 0, -30], [0, 0, 4, -20], [0, 0, 0, 1]])


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """A function (case) → the reference numbers of constrained ICA for it."""
    folder = SHARED / "reference" / "constrained_ica"
    if not folder.is_dir():
        pytest.skip(f"there are no reference numbers at {folder}")
    return lambda case: np.load(folder / f"{case}.npz")


@pytest.fixture(scope="session")
def real_scans() -> Path:
    """The folder of ten real scans and the NeuroMark template."""
    folder = SHARED / "data" / "fmri_neuromark"
    if not folder.is_dir():
        pytest.skip(f"there are no real scans at {folder}")
    return folder


@dataclass(frozen=True)
class Cohort:
    """Simulated scans on disk, and what they were made of; ``brain`` is bright, everything else dim."""

    scans: list[Path]
    template: Path
    brain: npt.NDArray[np.bool_]
    maps: npt.NDArray[np.float64]


def blobs(shape: tuple[int, ...], affine: npt.NDArray, centres_mm: npt.NDArray, width_mm: float) -> npt.NDArray:
    """(x, y, z, maps) One Gaussian blob per centre, sampled at the voxels of a grid."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    places = voxels @ affine[:3, :3].T + affine[:3, 3]
    squares = ((places[..., None, :] - centres_mm) ** 2).sum(-1)
    return np.exp(-squares / (2 * width_mm**2))


CENTRES_MM = np.array([[10.0, -14, -4], [-8, 10, 8], [8, 8, -8], [-6, -12, 10]])


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Three scans of 30 volumes, four blobs in them, and the blobs as the template."""
    rng = np.random.default_rng(7)
    maps = blobs(SHAPE, AFFINE, CENTRES_MM, 6.0)
    brain = np.zeros(SHAPE, dtype=bool)
    brain[1:-1, 1:-1, 1:-1] = True
    template = tmp_path / "template.nii.gz"
    nibabel.save(nibabel.Nifti1Image(maps.astype(np.float32), AFFINE), template)
    scans = []
    for subject in range(3):
        signal = 20 * maps @ rng.normal(size=(4, 30)) + rng.normal(size=(*SHAPE, 30))
        image = nibabel.Nifti1Image((signal + 1000 * brain[..., None]).astype(np.float32), AFFINE)
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((4, 4, 4, 2.0))
        scans.append(tmp_path / f"sub-{subject + 1}_task-rest_bold.nii.gz")
        nibabel.save(image, scans[-1])
    return Cohort(scans, template, brain, maps[brain].T)
