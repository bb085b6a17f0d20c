"""Spatial maps in z: the most frequent value taken as zero, then divided by their size.

As the GIFT toolbox scales component maps: one offset per component, from the group's mean map, shared by subjects.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError

Maps = npt.NDArray[np.float64]

VOXELS_PER_BIN = 10
# a Gaussian of 1.1 bins full width at half maximum; GIFT's exponent has 4 in it where a Gaussian has 2
SMOOTHING_BINS = 1.1 / np.sqrt(8 * np.log(2))


def modes(mean_maps: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The mode of each map: the peak of a smoothed histogram of its nonzero voxels, to be taken of the mean map.

    Args:
        mean_maps: (components, voxels), the mean over subjects.

    Returns:
        (components,) Offsets in the units of the maps.

    Raises:
        AutoSpecError: A map is zero everywhere or not finite.
    """
    return np.array([_mode(values, index) for index, values in enumerate(_require_maps(mean_maps))])


def scale_maps(maps: npt.ArrayLike, offsets: npt.ArrayLike) -> Maps:
    """One subject's maps in z: minus the offset, divided by √(Σv² / (voxels − 1)).

    Args:
        maps: (components, voxels) of one subject.
        offsets: (components,) The group's ``modes``.

    Returns:
        (components, voxels) Maps in z.

    Raises:
        AutoSpecError: Shapes do not fit, values are not finite, or a map equals its offset everywhere.
    """
    values, zero = _require_maps(maps), np.asarray(offsets, dtype=np.float64)
    if zero.shape != (len(values),):
        raise AutoSpecError(f"offsets of shape {zero.shape} do not fit {len(values)} maps")
    shifted = values - zero[:, None]
    size = np.sqrt((shifted**2).sum(axis=1) / (values.shape[1] - 1))
    if not size.all():
        raise AutoSpecError(f"map {int(np.flatnonzero(size == 0)[0]) + 1} (from 1) equals its offset everywhere")
    return shifted / size[:, None]


def _mode(values: npt.NDArray[np.float64], index: int) -> float:
    values = values[values != 0]
    if not values.size:
        raise AutoSpecError(f"map {index + 1} (from 1) is zero everywhere, so has no mode")
    centres = np.linspace(values.min(), values.max(), -(-len(values) // VOXELS_PER_BIN))
    edges = (centres[1:] + centres[:-1]) / 2
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(centres)).astype(np.float64)
    return float(centres[np.argmax(_smooth(counts))])


def _smooth(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Counts smoothed about their mean, so that beyond the ends the histogram goes on at its mean, not at zero."""
    reach = round(6 * SMOOTHING_BINS)
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (4 * SMOOTHING_BINS**2))
    mean = counts.mean()
    # mode "full" cut to length, since "same" is as long as the kernel where that is the longer one
    smooth = np.convolve(counts - mean, kernel / kernel.sum())[reach : reach + len(counts)]
    smoothed: npt.NDArray[np.float64] = smooth + mean
    return smoothed


def _require_maps(maps: npt.ArrayLike) -> Maps:
    values = np.asarray(maps, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise AutoSpecError(f"maps must be (components, voxels) with 2 voxels or more, not {values.shape}")
    if not np.isfinite(values).all():
        raise AutoSpecError(f"maps: {int((~np.isfinite(values)).sum())} values are NaN or infinite")
    return values
