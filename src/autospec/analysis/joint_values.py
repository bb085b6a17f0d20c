"""What all groups at once, and covariates, are compared by under every permutation; NumPy only: recorders use it."""

from __future__ import annotations

import numpy as np

from autospec.analysis.nan_statistics import Floats
from autospec.analysis.p_values import studentise


def dispersions(deviations: Floats) -> tuple[Floats, Floats]:
    """Say how far groups are apart under every partition, on one scale for all groups.

    Each group's value is studentised over partitions, so that a small group, whose values vary more, weighs no more
    than a large one.

    Args:
        deviations: (group, partition, index) log2 of each group's singular values less their mean over groups, the
            observed partition first.

    Returns:
        (partition, index) the mean over groups of the squared z, and (group, index) what the observed groups have above
        their mean over partitions; NaN where a value is not known in every partition.
    """
    # a value is compared under every partition or under none, so that the choice depends on no labels
    known = np.isfinite(deviations).all(axis=(0, 1))
    z, excess = studentise(np.where(known, deviations.astype(np.float64), np.nan), 1)
    used = np.isfinite(z).all(axis=(0, 1))
    return np.where(used, (z**2).mean(axis=0), np.nan), np.where(used, excess[:, 0], np.nan)


def rank_correlations(ranks: Floats, values: Floats) -> Floats:
    """Correlate permuted ranks with the ranks of several columns (Spearman's rho, ties averaged).

    Args:
        ranks: (partition, subject).
        values: (subject, column).

    Returns:
        (partition, column); NaN for a column with NaN or of one value.
    """
    known = np.isfinite(values).all(axis=0)
    own = average_ranks(np.where(known, values, 0.0))
    a, b = ranks - ranks.mean(axis=1, keepdims=True), own - own.mean(axis=0)
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=0)
    return np.where(known & (norms > 0), a @ b / np.where(norms > 0, norms, 1.0), np.nan)


def average_ranks(values: Floats) -> Floats:
    """Rank each column, ties averaged: ``scipy.stats.rankdata(values, axis=0)``.

    Args:
        values: (n, column).

    Returns:
        (n, column) from 1 to n.
    """
    return np.stack([_ranks(column) for column in values.T], axis=1) if values.shape[1] else np.empty(values.shape)


def _ranks(column: Floats) -> Floats:
    _, place, count = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[place.reshape(-1)])
