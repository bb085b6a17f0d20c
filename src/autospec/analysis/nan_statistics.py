"""Means and medians of what is known: NaN is left out, and is the answer where nothing else is there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mean(values: Floats, axis: int) -> Floats:
    """The mean of what is not NaN along an axis, NaN where nothing is."""
    known = np.isfinite(values)
    n = known.sum(axis)
    return np.where(n > 0, np.where(known, values, 0.0).sum(axis) / np.maximum(n, 1), np.nan)


def median(values: Floats, axis: int | None) -> Floats:
    """The median of what is not NaN, NaN where nothing is."""
    some = np.isfinite(values).any(axis, keepdims=True)
    return np.nanmedian(np.where(some, values, 0.0), axis) + np.where(some, 0.0, np.nan).squeeze(axis)
