"""Against NumPy's own, slice by slice; warnings are errors here."""

import numpy as np
import pytest

from autospec.analysis.nan_statistics import deviation, mean, median

VALUES = np.random.default_rng(0).normal(size=(5, 4, 3))
VALUES[np.random.default_rng(1).random(VALUES.shape) < 0.4] = np.nan
VALUES[:, 1], VALUES[2], VALUES[1:, 2, 0] = np.nan, np.nan, np.nan


def _kept(line):
    return line[~np.isnan(line)]


REFERENCES = {
    mean: lambda line: _kept(line).mean() if len(_kept(line)) else np.nan,
    median: lambda line: np.median(_kept(line)) if len(_kept(line)) else np.nan,
    deviation: lambda line: _kept(line).std(ddof=1) if len(_kept(line)) > 1 else np.nan,
}


@pytest.mark.parametrize("statistic", REFERENCES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_not_nan_counts(statistic, axis):
    expected = np.apply_along_axis(REFERENCES[statistic], axis, VALUES)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(statistic(VALUES, axis), expected, rtol=1e-12)


def test_the_median_of_all():
    assert median(VALUES, None) == np.median(_kept(VALUES))
    assert np.isnan(median(np.full((2, 2), np.nan), None))
