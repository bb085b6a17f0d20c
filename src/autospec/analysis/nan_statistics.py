"""Means, medians and deviations of what is not NaN: xarray's, for plain arrays.

NumPy's own warn where all is NaN, which is an ordinary answer here: a value under the noise floor at every epoch has
no mean. xarray's say NaN and are silent.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

Floats = npt.NDArray[np.float64]


def mean(values: Floats, axis: int) -> Floats:
    """Return the mean along an axis of what is not NaN; NaN where nothing is."""
    return xr.DataArray(values).mean(axis=axis, skipna=True).to_numpy()


def median(values: Floats, axis: int | None) -> Floats:
    """Return the median along an axis, or of all, of what is not NaN; NaN where nothing is."""
    return xr.DataArray(values).median(axis=axis, skipna=True).to_numpy()


def deviation(values: Floats, axis: int) -> Floats:
    """Return the sample standard deviation (ddof 1) of what is not NaN; NaN where fewer than two are."""
    return xr.DataArray(values).std(axis=axis, ddof=1, skipna=True).to_numpy()
