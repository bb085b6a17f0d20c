"""Slow and obvious implementations to compare with: one reference at a time, one voxel sum per line."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def prepared(data: Array, preparation: str) -> Array:
    data = np.array(data, dtype=float)
    times = np.arange(len(data))
    for voxel in range(data.shape[1]):
        if preparation == "rv":
            data[:, voxel] -= data[:, voxel].mean()
        if preparation == "vn":
            data[:, voxel] -= np.polyval(np.polyfit(times, data[:, voxel], 1), times)
            data[:, voxel] /= data[:, voxel].std(ddof=1) + np.finfo(float).eps
    for time in times:
        data[time] -= data[time].mean()
    return data


def constrained_ica(data: Array, references: Array, preparation: str = "rt") -> tuple[Array, Array]:
    data = prepared(data, preparation)
    maps = np.array([one_map(data, reference) for reference in references])
    if np.sqrt(np.sum((1 - maps.std(axis=1, ddof=1)) ** 2)) > 0.01:
        maps = np.array([one_map(data, reference, 0.02) for reference in references])
    return maps, data @ maps.T / data.shape[1]


def one_map(data: Array, reference: Array, floor: float | None = None) -> Array:
    """The map that follows one reference; ``floor`` cuts eigenvalues absolutely, without unit rows."""
    n_voxels = data.shape[1]
    eigenvalues, vectors = np.linalg.eigh(np.cov(data, bias=True) + np.outer(data.mean(1), data.mean(1)))
    kept = eigenvalues > (1e-10 * eigenvalues.max() if floor is None else floor)
    white = np.diag(eigenvalues[kept] ** -0.5) @ vectors[:, kept].T @ data
    if floor is None and not kept.all():
        white = white / white.std(axis=1, ddof=1)[:, None]
    r = (reference - reference.mean()) / reference.std(ddof=1)
    q = white @ r / n_voxels
    start = np.linalg.pinv(white).T @ r
    w = start / np.linalg.norm(start)

    def excess(w: Array) -> float:
        y = w @ white
        return float(np.mean(np.logaddexp(y, -y) - np.log(2)) - 0.3745672075)

    c = np.tan(np.pi / 2 * (w @ q)) / excess(w) ** 2

    def f(w: Array) -> float:
        return float(np.arctan(c * excess(w) ** 2) / np.pi + w @ q / 2)

    def gradient(w: Array) -> Array:
        j = c * excess(w) ** 2
        pull = white @ np.tanh(w @ white) / n_voxels
        return 0.5 * (2 / np.pi) * c / (1 + j**2) * 2 * excess(w) * pull + 0.5 * q

    step, g = 1.0, gradient(w)
    for _ in range(100):
        candidate = w + step * g / np.linalg.norm(g)
        candidate = candidate / np.linalg.norm(candidate)
        if f(candidate) - f(w) < 0.02 * step * np.linalg.norm(g):
            step = step / 2
        elif np.sum((w - candidate) ** 2) < 1e-5:
            break
        else:
            w, g = candidate, gradient(candidate)
    return candidate @ white


def dual_regression(data: Array, references: Array) -> Array:
    """Maps by two least-squares fits: the references to each volume, then their standardised courses to each voxel.

    Nickerson et al. 2017, Frontiers in Neuroscience 11:115.
    """
    data = prepared(data, "rv")
    centred = references - references.mean(axis=1, keepdims=True)
    courses = np.linalg.lstsq(centred.T, data.T, rcond=None)[0].T
    return np.linalg.lstsq(courses / courses.std(axis=0), data, rcond=None)[0]


def correlations(left: Array, right: Array) -> Array:
    """The signed correlation of each row with its partner."""
    return np.array([np.corrcoef(one, other)[0, 1] for one, other in zip(left, right, strict=True)])
