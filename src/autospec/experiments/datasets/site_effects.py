"""How far sites lie apart, feature by feature: what ComBat is there to take out, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def site_effects(values: npt.NDArray, sites: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each site's features differ from those of everybody.

    Args:
        values: (n, features).
        sites: (n,) Of each subject.

    Returns:
        For each site the ``QUANTILES`` over features of two numbers: ``shift``, its mean less the mean of all in SD of
        all, and ``spread``, the logarithm (base 2) of its SD over that of all. Features that do not vary are left out.
    """
    flat = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    flat = flat[:, np.ptp(flat, axis=0) > 0]
    mean, sd, names = flat.mean(0), flat.std(0), np.asarray(sites)
    effects = {}
    for site in sorted(set(sites)):
        own = flat[names == site]
        with np.errstate(divide="ignore"):  # a feature that is the same all over a site
            spread = np.log2(own.std(0) / sd)
        effects[site] = {
            "shift": _quantiles((own.mean(0) - mean) / sd),
            "spread": _quantiles(spread[np.isfinite(spread)]),
        }
    return effects


def largest_shift(effects: dict[str, dict[str, Any]]) -> float:
    """The farthest quartile, without sign, of any site's features from everybody's: what one line can say.

    Args:
        effects: Of every site.

    Returns:
        SD.
    """
    return max(max(abs(of_site["shift"][1]), abs(of_site["shift"][3])) for of_site in effects.values())


def _quantiles(values: npt.NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.quantile(values, QUANTILES)] if len(values) else [0.0] * len(QUANTILES)
