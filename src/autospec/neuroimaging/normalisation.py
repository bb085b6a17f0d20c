"""What is taken off a scan before constrained ICA: three preparations, as the GIFT toolbox names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autospec.neuroimaging.voxels import namespace

EPSILON = float(np.finfo(np.float64).eps)


def subtract_volume_means(data: Any) -> Any:
    """``rt``: every volume minus its mean over voxels. (time, voxels) → the same, a new array.

    Args:
        data: (time, voxels), NumPy or torch.

    Returns:
        (time, voxels) Every volume with mean 0.
    """
    return data - data.mean(1)[:, None]


def subtract_voxel_means(data: Any) -> Any:
    """``rv``: every voxel minus its mean over time, then as ``rt``.

    Args:
        data: (time, voxels), NumPy or torch.

    Returns:
        (time, voxels) Every voxel with mean 0 over time, then every volume with mean 0.
    """
    return subtract_volume_means(data - data.mean(0))


def normalise_variance(data: Any) -> Any:
    """``vn``: every voxel without its line over time and divided by its std (ddof 1), then as ``rt``.

    A voxel that is constant over time becomes zero: the std has eps added.

    Args:
        data: (time, voxels), NumPy or torch, float64.

    Returns:
        (time, voxels) Every voxel without its line and with std 1, then every volume with mean 0.
    """
    n_times = len(data)
    line, _ = np.linalg.qr(np.stack([np.ones(n_times), np.arange(n_times, dtype=np.float64)], axis=1))
    basis = line if namespace(data) is np else namespace(data).as_tensor(line, device=data.device)
    detrended = data - basis @ (basis.T @ data)
    variance = (detrended * detrended).sum(0) / (n_times - 1)
    return subtract_volume_means(detrended / (variance**0.5 + EPSILON))


PREPARATIONS: dict[str, Callable[[Any], Any]] = {
    "rt": subtract_volume_means,
    "rv": subtract_voxel_means,
    "vn": normalise_variance,
}
"""Names of preparations; each takes float64 (time, voxels), NumPy or torch, and returns a new array."""
