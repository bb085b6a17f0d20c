"""Means, medians and deviations of what is not NaN.

NumPy's own warn where all is NaN, which is an ordinary answer here: a value under the noise floor at every epoch has
no mean. These say NaN and are silent.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mean(values: Floats, axis: int) -> Floats:
    """Return the mean along an axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    return np.asarray(np.where(known, values, 0.0).sum(axis) / np.where(count > 0, count, np.nan))


def median(values: Floats, axis: int | None) -> Floats:
    """Return the median along an axis, or of all, of what is not NaN; NaN where nothing is."""
    lines = np.asarray(values, dtype=np.float64)
    lines = lines.reshape(-1) if axis is None else np.moveaxis(lines, axis, -1)
    if not lines.shape[-1]:
        return np.full(lines.shape[:-1], np.nan)
    in_order = np.sort(lines, axis=-1)  # NaN last
    count = (~np.isnan(lines)).sum(-1, keepdims=True)
    middle = np.maximum(np.concatenate([(count - 1) // 2, count // 2], axis=-1), 0)
    return np.asarray(np.take_along_axis(in_order, middle, axis=-1).mean(-1))


def deviation(values: Floats, axis: int) -> Floats:
    """Return the sample standard deviation (ddof 1) of what is not NaN; NaN where fewer than two are."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    squares = np.where(known, values - np.expand_dims(mean(values, axis), axis), 0.0) ** 2
    return np.asarray(np.sqrt(squares.sum(axis) / np.where(count > 1, count - 1, np.nan)))
