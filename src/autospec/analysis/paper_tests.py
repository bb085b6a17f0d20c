"""The paper's group tests: two-tailed t-tests over singular values and over epochs (paper, section 2.2).

They treat singular values, or epochs, as independent observations, which they are not. Where there is no difference
they report one at 0.05 in up to 0.011 of simulated studies per epoch, and in 0 to 0.73 of them per index, as network
and group sizes go (docs/calibration.md). They are descriptive, and called so wherever they appear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from autospec.analysis.comparison import Comparison, Mask
from autospec.analysis.nan_statistics import Floats, deviation, mean, median
from autospec.errors import require_extra

TESTS = ("paper", "paper_scaled")

COLUMNS = {
    "layer": "The layer, by the name of its weight.",
    "statistic": "Whose singular values are compared: gradient, activation or adjoint.",
    "group_a": "The first group of the pair.",
    "group_b": "The second group of the pair.",
    "test": "paper: raw singular values; paper_scaled: of each group's mean gradient. Student, unpaired, two-sided.",
    "kind": "descriptive: the observations are not independent, and p is no probability of a chance finding.",
    "per": "What one row is about: an epoch (over singular values) or an index (over epochs).",
    "at": "The epoch, or the index of the singular value (from 1).",
    "n": "Observations in each group: values that can be compared.",
    "mean_a": "Their mean in the first group.",
    "mean_b": "Their mean in the second group.",
    "t": "Student's t; positive where the first group's mean is larger.",
    "df": "Degrees of freedom; NaN without a value.",
    "p": "Two-sided p of that t; NaN where it is not defined.",
    "median_log2_ratio": "Median of log2 (first group's scaled singular value / second group's).",
    "below_floor": "Values left out because one group's lies below its noise floor.",
    "beyond_rank": "Values left out because they lie beyond the smaller rank bound, where they are zero or rounding.",
    "note": "Why p is NaN, where it is.",
}
"""Every column of the table and what it means."""


def paper_tests(compared: Iterable[Comparison], statistic: str = "gradient") -> pd.DataFrame:
    """Make the paper's t-tests (paper, section 2.2) of every comparison.

    Args:
        compared: Comparisons of groups in layers (``compare``).
        statistic: Whose singular values they are: gradient, activation or adjoint.

    Returns:
        A row per test and epoch, and per test and index, with the columns of ``COLUMNS``.
    """
    parts = [_test(comparison, test, per) for comparison in compared for test in TESTS for per in ("epoch", "index")]
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True).assign(statistic=statistic, kind="descriptive")[list(COLUMNS)]


def _test(comparison: Comparison, test: str, per: str) -> pd.DataFrame:
    """One test at every epoch over indices (``per="epoch"``) or at every index over epochs."""
    axis = 1 if per == "epoch" else 0
    kept, ratio = comparison.comparable, comparison.log_ratio()
    a, b = comparison.raw if test == "paper" else comparison.scaled
    n = kept.sum(axis)
    t, df, p = student(a, b, kept, axis)
    return pd.DataFrame(
        {
            "layer": comparison.layer,
            "group_a": comparison.a,
            "group_b": comparison.b,
            "test": test,
            "per": per,
            "at": comparison.epochs if per == "epoch" else comparison.indices,
            "n": n,
            "mean_a": mean(np.where(kept, a, np.nan), axis),
            "mean_b": mean(np.where(kept, b, np.nan), axis),
            "t": t,
            "df": df,
            "p": p,
            "median_log2_ratio": median(ratio, axis),
            "below_floor": comparison.below_floor.sum(axis),
            "beyond_rank": comparison.beyond_rank.sum(axis),
            "note": list(_notes(n, p)),
        }
    )


def student(a: Floats, b: Floats, kept: Mask, axis: int) -> tuple[Floats, Floats, Floats]:
    """Make Student's unpaired two-sided test along an axis; the same as ``scipy.stats.ttest_ind`` on the values kept.

    Args:
        a: The first group's values.
        b: The second group's values, of the same shape.
        kept: Which values take part.
        axis: The axis of the observations.

    Returns:
        t, degrees of freedom and p, each without that axis; NaN where fewer than two values are kept or none varies.
    """
    require_extra("autospec.analysis", "figures", "scipy")
    from scipy.stats import ttest_ind_from_stats

    n = kept.sum(axis).astype(np.float64)
    kept_a, kept_b = (np.where(kept, values, np.nan) for values in (a, b))
    deviation_a, deviation_b = deviation(kept_a, axis), deviation(kept_b, axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        t, p = ttest_ind_from_stats(
            mean(kept_a, axis), deviation_a, n, mean(kept_b, axis), deviation_b, n, equal_var=True
        )
    # where nothing varies SciPy says ±inf or NaN, which is no result
    defined = (n >= 2) & (deviation_a + deviation_b > 0)
    return np.where(defined, t, np.nan), np.where(n > 0, 2 * n - 2, np.nan), np.where(defined, p, np.nan)


def _notes(n: Floats, p: Floats) -> Iterator[str]:
    for count, value in zip(n, p, strict=True):
        if count < 2:
            yield "fewer than two values above both noise floors"
        else:
            yield "" if np.isfinite(value) else "the values do not vary"
