"""Simulated spatial maps on the MNI grid: the maximum over 53 smooth components whose amplitudes differ by subject."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CobreMapsConfig
from autospec.experiments.datasets.simulation.components import CENTRES_MM, COMPONENTS, DOMAIN_OF, DOMAINS
from autospec.experiments.datasets.simulation.subjects import SimulatedSubjects, Vector, check_keys

RESOLUTION_MM = 6


def simulate_maps(
    config: CobreMapsConfig, subjects: SimulatedSubjects, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Simulate maps, zero outside the brain: max over components of amplitude times blob, plus smooth noise.

    Args:
        config: The data set's configuration.
        subjects: Who is simulated.
        random: The random stream.

    Returns:
        (n, x, y, z).
    """
    strengths, noise = random.spawn(2)
    resolution_mm = RESOLUTION_MM if config.resolution_mm is None else config.resolution_mm
    mask, affine = brain(resolution_mm)
    blobs = _blobs(mask, affine, config.blob_sd_mm).astype(np.float32)
    amplitude = amplitudes(config, subjects, strengths).astype(np.float32)
    inside = np.zeros((len(subjects), blobs.shape[1]), dtype=np.float32)
    for component in range(COMPONENTS):
        np.maximum(inside, amplitude[:, component, None] * blobs[component], out=inside)
    maps = np.zeros((len(subjects), *mask.shape), dtype=np.float32)
    texture = _smooth_noise((len(subjects), *mask.shape), config.noise_smoothness_mm / resolution_mm, noise)
    maps[:, mask] = inside + config.noise_sd * texture[:, mask]
    return maps


def amplitudes(
    config: CobreMapsConfig, subjects: SimulatedSubjects, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """How strong each component is in each subject, about 1; effects are in SD between subjects.

    Args:
        config: The data set's configuration.
        subjects: Who is simulated.
        random: The random stream.

    Returns:
        (n, 53).

    Raises:
        AutoSpecError: The correlation is not from 0 to 1.
    """
    if not 0 <= config.amplitude_correlation <= 1:
        raise AutoSpecError(f"dataset.amplitude_correlation={config.amplitude_correlation}: must be from 0 to 1")
    shared = random.standard_normal((len(subjects), len(DOMAINS)))[:, DOMAIN_OF]
    individual = random.standard_normal((len(subjects), COMPONENTS))
    deviation = np.sqrt(config.amplitude_correlation) * shared + np.sqrt(1 - config.amplitude_correlation) * individual
    causes = (subjects.diagnosis, subjects.sex, subjects.age, subjects.motion)
    for cause, effect in zip(causes, effects(config), strict=True):
        deviation += np.outer(cause, effect)
    return np.asarray(1 + config.amplitude_sd * deviation)


def effects(config: CobreMapsConfig) -> list[Vector]:
    """What diagnosis, sex, age and motion do to each component's amplitude, in SD.

    Args:
        config: The data set's configuration.

    Returns:
        A vector (53,) per cause.

    Raises:
        AutoSpecError: A key of the effects is unknown.
    """
    keys = ("diagnosis_effects", "sex_effects", "age_effects", "motion_effects")
    return [_by_component(getattr(config, key), key) for key in keys]


@lru_cache(maxsize=4)
def brain(resolution_mm: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """The brain of the MNI template that nilearn carries, on a grid of this resolution, cropped; mask and affine.

    Args:
        resolution_mm: Voxel size.

    Returns:
        Mask (x, y, z) and affine (4, 4).
    """
    from nilearn.datasets import load_mni152_brain_mask

    image = load_mni152_brain_mask(resolution=resolution_mm)
    mask = np.asarray(image.dataobj).astype(bool)
    corners = np.argwhere(mask)
    low, high = corners.min(axis=0), corners.max(axis=0) + 1
    affine = np.array(image.affine, dtype=np.float64)
    # cropping moves the voxel with index 0
    affine[:3, 3] += affine[:3, :3] @ low
    return mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], affine


def _blobs(mask: npt.NDArray[np.bool_], affine: npt.NDArray[np.float64], blob_sd_mm: float) -> npt.NDArray[np.float64]:
    """Each component's shape (53, voxels in the mask): a Gaussian about its centre and about the mirrored one."""
    voxels_mm = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    centres = np.array([centre for domain in DOMAINS for centre in CENTRES_MM[domain]], dtype=np.float64)
    nearest = np.inf
    for side in (1, -1):
        offset = voxels_mm[None] - (centres * (side, 1, 1))[:, None]
        nearest = np.minimum(nearest, (offset**2).sum(axis=2))
    return np.exp(-nearest / (2 * blob_sd_mm**2))


def _smooth_noise(
    shape: tuple[int, ...], smoothness_voxels: float, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Noise (n, x, y, z) of unit variance, smooth in space."""
    from scipy.ndimage import gaussian_filter

    noise = random.standard_normal(shape, dtype=np.float32)
    smooth: npt.NDArray[np.float32] = gaussian_filter(noise, sigma=(0, *[smoothness_voxels] * 3))
    return smooth / smooth.std()


def _by_component(given: Mapping[str, float], key: str) -> Vector:
    check_keys(key, given, DOMAINS)
    return np.array([given.get(domain, 0.0) for domain in DOMAINS])[DOMAIN_OF]
