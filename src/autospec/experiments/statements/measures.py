"""Measures of spectra that statements are made of, and tests over seeds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from autospec.analysis.nan_statistics import Floats
from autospec.experiments.statements.networks import LayerRecord, RunRecord

FLIPS, FLIP_SEED = 1999, 314159
"""Sign flips of the seeds, besides the observed signs."""
STAGE = 0.2
"""Early and late: the first and the last fifth of the records."""


def early(records: Floats) -> Floats:
    """Return the first fifth of the records, at least one.

    Args:
        records: (record, ...) values.

    Returns:
        Its first records.
    """
    return records[: max(1, round(STAGE * len(records)))]


def late(records: Floats) -> Floats:
    """Return the last fifth of the records, at least one.

    Args:
        records: (record, ...) values.

    Returns:
        Its last records.
    """
    return records[-max(1, round(STAGE * len(records))) :]


def nan_median(values: Floats) -> float:
    """Return the median of the values that are there.

    Args:
        values: Any values.

    Returns:
        Their median; NaN where there are none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.nanmedian(values)) if np.size(values) else float("nan")


def distance(one: LayerRecord, other: LayerRecord, stage=lambda records: records) -> float:  # type: ignore[no-untyped-def]
    """Return how far two layers' spectra are apart: the median of |log2 σ - log2 σ'| over records and shared indices.

    Args:
        one: A layer.
        other: The same layer of another run.
        stage: ``early``, ``late``, or all records.

    Returns:
        The distance in doublings; NaN where nothing lies above both floors.
    """
    shared = min(one.value.shape[1], other.value.shape[1])
    return nan_median(np.abs(stage(one.above)[:, :shared] - stage(other.above)[:, :shared]))


def jump(run: RunRecord) -> float:
    """Return how much singular values jump from one record to the next.

    Args:
        run: A run.

    Returns:
        The median over layers of the median of |Δ log2 σ|.
    """
    return nan_median(np.array([nan_median(np.abs(np.diff(layer.above, axis=0))) for layer in run.layers.values()]))


def growth(layer: LayerRecord) -> float:
    """Return the median over indices of log2 σ late in training less early; below 0 they shrink.

    Args:
        layer: A layer.

    Returns:
        The growth in doublings; NaN where no index stays above the floor.
    """
    return nan_median(_over_records(late(layer.above)) - _over_records(early(layer.above)))


def _over_records(values: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(values, axis=0)


def change_by_index(layer: LayerRecord) -> float:
    """Return Spearman's correlation of a singular value's index with how much it changes over training.

    Args:
        layer: A layer; values below the floor count as they are, since the statement is about these too.

    Returns:
        The correlation, above 0 where small ones change most; NaN with fewer than four indices.
    """
    from scipy.stats import spearmanr

    change = np.abs(_over_records(late(layer.value)) - _over_records(early(layer.value)))
    known = np.isfinite(change)
    if known.sum() < 4 or np.ptp(change[known]) == 0:
        return float("nan")
    return float(spearmanr(np.flatnonzero(known), change[known]).statistic)


def share_at_floor(layer: LayerRecord, quarter: float = 0.25, doublings: float = 3.0) -> float:
    """Return which share of the smallest quarter of singular values lies near or below the floor late in training.

    Args:
        layer: A layer.
        quarter: The share of indices that are called small.
        doublings: How near the floor, in doublings above it.

    Returns:
        The share.
    """
    count = max(1, round(quarter * layer.value.shape[1]))
    small, floor = late(layer.value)[:, -count:], late(layer.floor)[:, None]
    return float(np.mean(~(small > floor + doublings)))


def sign_flip_p(differences: Floats) -> float:
    """Test whether paired differences are symmetric about 0, by flipping the sign of whole seeds.

    Args:
        differences: (seed,) or (seed, feature) differences of two runs of each seed.

    Returns:
        p = #{statistic ≥ observed} / (1 + flips), of the sum over features of (mean / deviation)²; NaN with fewer than
        six seeds, when no p could reach 0.05.
    """
    table = np.asarray(differences, dtype=np.float64).reshape(len(differences), -1)
    table = table[:, np.isfinite(table).all(0)]
    if len(table) < 6 or not table.shape[1]:
        return float("nan")
    scale = np.sqrt((table**2).mean(0))
    scaled = table[:, scale > 0] / scale[scale > 0]  # flips do not change it
    signs = np.random.default_rng(FLIP_SEED).choice([-1.0, 1.0], size=(FLIPS, len(table)))
    statistic = ((np.vstack([np.ones(len(table)), signs]) @ scaled) ** 2).sum(1)
    return float(np.mean(statistic >= statistic[0] * (1 - 1e-9)))


def binomial_p(is_significant: Sequence[bool], alpha: float) -> float:
    """Test whether more seeds found something than their valid tests at ``alpha`` would by chance.

    Args:
        is_significant: Of each seed, with data of its own, whether p was at most ``alpha``.
        alpha: The level.

    Returns:
        One-sided ``scipy.stats.binomtest``; NaN without seeds.
    """
    from scipy.stats import binomtest

    return (
        float(binomtest(sum(is_significant), len(is_significant), alpha, alternative="greater").pvalue)
        if len(is_significant)
        else float("nan")
    )
