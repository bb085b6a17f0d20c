"""p from distances of permuted partitions: each, family-wise by the largest, and the false discovery rate.

The observed partition is the first and counts among all. Without a group difference it is one of 1 + P exchangeable
partitions, so that ``p = #{distance ≥ observed} / (1 + P)`` is exact (Phipson & Smyth 2010, Stat Appl Genet Mol Biol
9:39).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autospec.analysis.nan_statistics import Floats
from autospec.errors import require_extra

SMALLEST_SD = 1e-6
"""A smaller standard deviation over partitions is rounding: log2 ratios are stored in float32."""
TIE = 1e-5
"""Distances that agree to this are ties, and count against the observed partition."""


def studentise(values: Floats, axis: int) -> tuple[Floats, Floats]:
    """Divide the deviation from the mean over partitions by their standard deviation.

    Args:
        values: One value per partition and place.
        axis: The axis of the partitions.

    Returns:
        z, and the deviation from the mean, both of the shape of ``values``; z is NaN where partitions do not vary.
    """
    deviation = values - values.mean(axis, keepdims=True)
    sd = np.sqrt((deviation**2).mean(axis, keepdims=True))
    # not a comparison with >, so that NaN stays NaN without a warning
    return deviation / np.where(sd > SMALLEST_SD, sd, np.nan), deviation


def p_values(family: Sequence[Floats]) -> tuple[list[Floats], list[Floats]]:
    """Compute p and family-wise p of a family of distances.

    Args:
        family: Of each member the (partition, place) distances, the observed partition first.

    Returns:
        Of each member the (place,) p, and the (place,) p by the largest distance of the whole family.
    """
    z = [studentise(distance, 0)[0] for distance in family]
    # the distances of every layer, pair and place on one scale: the largest is compared with the largest
    largest = _largest(np.concatenate(z, axis=1))[:, None]
    family_wise = [exceedance(np.broadcast_to(largest, member.shape), member[0]) for member in z]
    return [exceedance(member) for member in z], family_wise


def exceedance(z: Floats, observed: Floats | None = None) -> Floats:
    """Compute the share of partitions at or above the observed one, which counts among them.

    The p-value of ``scipy.stats.permutation_test`` with ``alternative="greater"``, (1 + #{≥}) / (P + 1).

    Args:
        z: (partition, place) studentised distances, the observed partition first.
        observed: (place,) the observed distances; None takes the first partition's.

    Returns:
        (place,) shares; NaN where nothing could be compared.
    """
    value = z[0] if observed is None else observed
    at_least = np.where(np.isnan(z), False, z >= value - TIE * np.maximum(1.0, np.abs(value)))
    at_least[0] = True
    return np.where(np.isfinite(value), at_least.mean(0), np.nan)


def benjamini_hochberg(p: Floats) -> Floats:
    """Control the false discovery rate: ``scipy.stats.false_discovery_control`` over the p that are defined.

    Args:
        p: p-values, NaN where there is none.

    Returns:
        q of the same shape, NaN where there is no p.
    """
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
