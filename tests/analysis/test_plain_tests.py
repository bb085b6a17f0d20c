import numpy as np
import pytest

from autospec.analysis.plain_tests import covariance_distances, mean_distances, plain_tests
from autospec.store.permuted_pairs import PairPermutations


def _permuted(observed, permutations=99, seed=0):
    random = np.random.default_rng(seed)
    members = np.tile(np.array(observed, dtype=np.int8), (1 + permutations, 1))
    for row in members[1:]:
        row[row > 0] = random.permutation(row[row > 0])
    return members


def test_distances_are_those_of_means_and_covariances_that_are_formed():
    random = np.random.default_rng(1)
    z, members = random.standard_normal((11, 4)), _permuted([1] * 4 + [2] * 7, 6)
    a, b = ((members == code) / (members == code).sum(axis=1, keepdims=True) for code in (1, 2))
    means, covariances = mean_distances(z, a, b), covariance_distances(z, a, b)
    for place, row in enumerate(members):
        one, other = z[row == 1], z[row == 2]
        assert means[place] == pytest.approx(((one.mean(0) - other.mean(0)) ** 2).sum())
        difference = np.cov(one.T, bias=True) - np.cov(other.T, bias=True)
        assert covariances[place] == pytest.approx((difference**2).sum())


@pytest.mark.parametrize(
    ("shift", "scale", "found"), [(2.0, 1.0, "inputs_mean"), (0.0, 3.0, "inputs_covariance"), (0.0, 1.0, None)]
)
def test_a_shift_is_found_by_the_means_and_a_scale_by_the_covariances(shift, scale, found):
    random = np.random.default_rng(2)
    inputs = random.standard_normal((40, 2, 3))
    inputs[20:] = inputs[20:] * scale + shift
    table = plain_tests(inputs, (PairPermutations("a", "b", ("sex",), _permuted([1] * 20 + [2] * 20)),))
    p = table.set_index("test")["p"]
    assert set(p.index) == {"inputs_mean", "inputs_covariance"}
    for test, value in p.items():
        assert value == pytest.approx(0.01) if test == found else value > 0.05
    assert (table["p_family"] == table["p"]).all()  # one pair
    assert set(table["strata"]) == {"sex"}


def test_who_is_in_neither_group_does_not_matter():
    random = np.random.default_rng(3)
    inputs = random.standard_normal((24, 5))
    members = _permuted([1] * 8 + [2] * 8 + [0] * 8)
    alone = plain_tests(inputs[:16], (PairPermutations("a", "b", (), members[:, :16]),))
    inputs[16:] += 100
    others = plain_tests(inputs, (PairPermutations("a", "b", (), members),))
    assert others["p"].tolist() == alone["p"].tolist()


def test_inputs_that_are_all_the_same_have_no_p():
    table = plain_tests(np.ones((12, 3)), (PairPermutations("a", "b", (), _permuted([1] * 6 + [2] * 6)),))
    assert table["p"].isna().all()
    assert set(table["note"]) == {"the inputs do not vary over partitions"}


def test_without_pairs_there_is_nothing():
    assert plain_tests(np.ones((3, 2)), ()).empty
