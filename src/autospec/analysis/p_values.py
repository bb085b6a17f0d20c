"""p from distances of relabelled partitions: each, family-wise by the largest, and the false discovery rate.

The observed partition is the first and counts among all: under the null it is one of 1 + P exchangeable ones, and
``p = #{distance ≥ observed} / (1 + P)`` is exact (Phipson & Smyth 2010, Stat Appl Genet Mol Biol 9:39).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autospec.analysis.nan_statistics import Floats
from autospec.errors import require_extra

SMALLEST_SD = 1e-6
"""What varies less than this over all partitions does not vary: log2 ratios are stored in float32."""
TIE = 1e-5
"""Distances that agree to this are ties, and count against the observed one."""


def studentised(values: Floats, axis: int) -> tuple[Floats, Floats]:
    """z over partitions, and the deviation from their mean; NaN where the partitions do not vary."""
    deviation = values - values.mean(axis, keepdims=True)
    sd = np.sqrt((deviation**2).mean(axis, keepdims=True))
    # not a comparison with >, so that NaN stays NaN without a warning
    return deviation / np.where(sd > SMALLEST_SD, sd, np.nan), deviation


def p_values(family: Sequence[Floats]) -> tuple[list[Floats], list[Floats]]:
    """p of distances (partition, places) of each member of a family, and family-wise p by the largest of all."""
    z = [studentised(distance, 0)[0] for distance in family]
    # the distances of every layer, pair and place on one scale: the largest is compared with the largest
    largest = _largest(np.concatenate(z, axis=1))[:, None]
    whole = [exceedance(np.broadcast_to(largest, own.shape), own[0]) for own in z]
    return [exceedance(own) for own in z], whole


def exceedance(z: Floats, observed: Floats | None = None) -> Floats:
    """The share of partitions (partition, places) at or above the observed one, which is the first and counted.

    The p-value of ``scipy.stats.permutation_test`` with ``alternative="greater"``, (1 + #{≥}) / (P + 1). NaN where
    nothing could be compared.
    """
    value = z[0] if observed is None else observed
    at_least = np.where(np.isnan(z), False, z >= value - TIE * np.maximum(1.0, np.abs(value)))
    at_least[0] = True
    return np.where(np.isfinite(value), at_least.mean(0), np.nan)


def benjamini_hochberg(p: Floats) -> Floats:
    """``scipy.stats.false_discovery_control`` over the p that are defined, NaN for the others."""
    require_extra("autospec.analysis", "figures", "scipy")
    from scipy.stats import false_discovery_control

    q = np.full_like(p, np.nan)
    defined = np.isfinite(p)
    if defined.any():
        q[defined] = false_discovery_control(p[defined])
    return q


def _largest(z: Floats) -> Floats:
    """(partition,): the largest distance of each partition, NaN where nothing could be compared."""
    defined = np.isfinite(z).all(0)
    return z[:, defined].max(1) if defined.any() else np.full(len(z), np.nan)
