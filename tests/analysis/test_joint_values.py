import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from autospec.analysis.joint_values import average_ranks, dispersions, rank_correlations


def test_ranks_are_scipys():
    values = np.random.default_rng(0).integers(0, 5, (30, 4)).astype(float)
    np.testing.assert_array_equal(average_ranks(values), rankdata(values, axis=0))
    assert average_ranks(np.empty((5, 0))).shape == (5, 0)


def test_rank_correlations_are_scipys():
    random = np.random.default_rng(1)
    ranks = rankdata(random.integers(0, 9, (6, 25)), axis=1).astype(float)
    values = np.round(random.standard_normal((25, 3)), 1)
    expected = [[spearmanr(row, column).statistic for column in values.T] for row in ranks]
    np.testing.assert_allclose(rank_correlations(ranks, values), expected, atol=1e-12)


def test_a_column_that_is_not_known_or_constant_has_no_correlation():
    values = np.random.default_rng(2).standard_normal((10, 3))
    values[3, 0], values[:, 1] = np.nan, 1.0
    found = rank_correlations(np.arange(20.0).reshape(2, 10), values)
    assert np.isnan(found[:, :2]).all()
    assert np.isfinite(found[:, 2]).all()


def test_a_dispersion_is_the_mean_squared_z_of_groups_studentised_each_by_itself():
    values = np.random.default_rng(3).standard_normal((3, 50, 4)) * np.array([1.0, 5.0, 0.1])[:, None, None]
    values[1, 7, 2] = np.nan
    found, excess = dispersions(values)
    for index in range(4):
        if index == 2:  # not known in one partition, so in none
            assert np.isnan(found[:, index]).all()
            assert np.isnan(excess[:, index]).all()
            continue
        z = [(own - own.mean()) / own.std() for own in values[:, :, index]]
        np.testing.assert_allclose(found[:, index], np.mean(np.square(z), axis=0))
        assert excess[:, index] == pytest.approx([own[0] - own.mean() for own in values[:, :, index]])
