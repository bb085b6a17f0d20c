import numpy as np
import pytest

from autospec.analysis.intervals import effects, interval


def _deviations(ratios):
    """Of (partition,) log-ratios, the same at two epochs and three indices."""
    values = np.broadcast_to(np.asarray(ratios, dtype=float)[None, :, None], (2, len(ratios), 3))
    return values - values.mean(1, keepdims=True)


def test_the_ends_are_the_shifts_that_the_permuted_effects_would_not_call_different():
    """An effect of 5 among the permuted -20 to 19: of 41 partitions one on either side is outermost."""
    ratios = np.array([5.0, *np.arange(-20.0, 20.0)])
    low, high = interval(_deviations(ratios))
    assert (low, high) == pytest.approx((5 - 18, 5 + 19), abs=1e-6)


@pytest.mark.parametrize("partitions", [40, 100, 1001])
def test_it_excludes_0_where_the_effect_is_among_the_outermost_5_percent(partitions):
    """Of every rank that the observed effect can have."""
    values = np.linspace(-1, 1, partitions)
    excluded = 0
    for rank in range(partitions):
        low, high = interval(_deviations([values[rank], *np.delete(values, rank)]))
        excluded += not low <= 0 <= high
    assert 0.05 - 2 / partitions < excluded / partitions <= 0.05


def test_an_effect_beyond_all_permuted_ones_is_away_from_zero():
    low, high = interval(_deviations([9.0, *np.linspace(-1, 1, 99)]))
    assert 6 < low < 9 < high


def test_it_covers_the_true_shift_in_95_of_100_studies():
    """Two groups of 15 values; the statistic is the difference of their means."""
    random, missed = np.random.default_rng(0), 0
    for _ in range(400):
        values = random.standard_normal(30)
        values[:15] += 1.0
        label = np.repeat([True, False], 15)
        partitions = [label, *(random.permutation(label) for _ in range(199))]
        found = interval(_deviations([values[one].mean() - values[~one].mean() for one in partitions]))
        missed += not found[0] <= 1.0 <= found[1]
    # scipy.stats.binom.interval(0.999, 400, 0.05): 8 to 35; a shift widens the permuted spread, so fewer is no fault
    assert missed <= 35


def test_what_cannot_be_compared_takes_no_part():
    deviations = _deviations([3.0, *np.linspace(-1, 1, 49)])
    hidden = deviations.copy()
    hidden[0, :, 1] = np.nan
    assert interval(hidden) == pytest.approx(interval(deviations))
    assert np.isnan(interval(np.full_like(deviations, np.nan))).all()
    assert np.isnan(effects(np.full_like(deviations, np.nan))).all()


def test_too_few_partitions_have_no_interval():
    assert np.isnan(interval(_deviations(np.arange(39.0)))).all()
    assert np.isfinite(interval(_deviations(np.arange(40.0)))).all()
