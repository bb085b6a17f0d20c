"""p, family-wise p and q against SciPy, and against their definitions."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control, permutation_test
from torch import nn

from autospec import SpectralRecorder
from autospec.analysis.p_values import benjamini_hochberg, exceedance, p_values
from autospec.analysis.permutation import permutation_tests
from autospec.store.permuted_pairs import PairPermutations, PermutationDesign

SUBJECTS, FIRST = 8, 3


def test_p_is_scipys():
    a, b = np.random.default_rng(1).normal(size=(2, 10))

    def distance(x, y):
        return abs(x.mean() - y.mean())

    random = np.random.default_rng(2)
    expected = permutation_test((a, b), distance, alternative="greater", n_resamples=999, rng=random)
    distances = np.array([distance(a, b), *expected.null_distribution])
    # scipy.stats.permutation_test(..., n_resamples=999).pvalue is (1 + #{null ≥ observed}) / 1000
    assert exceedance(distances[:, None])[0] == pytest.approx(expected.pvalue)


def test_q_is_scipys():
    p = np.random.default_rng(3).uniform(size=20)
    given = np.insert(p, 5, np.nan)
    # scipy.stats.false_discovery_control(p, method="bh") over the p that are defined
    assert np.delete(benjamini_hochberg(given), 5) == pytest.approx(false_discovery_control(p))
    assert np.isnan(benjamini_hochberg(given)[5])


def test_family_wise_p_compares_with_the_largest_of_each_partition():
    random = np.random.default_rng(5)
    family = [random.gamma(2.0, size=(50, places)) for places in (1, 3)]
    family[1][:, 2] = np.nan
    _, whole = p_values(family)
    z = np.concatenate([(own - own.mean(0)) / own.std(0) for own in family], axis=1)
    largest = np.nanmax(z, axis=1)
    for place, found in enumerate(np.concatenate(whole)[:3]):
        at_least = (largest >= z[0, place]) | (np.arange(50) == 0)
        assert found == pytest.approx(at_least.mean())
    assert np.isnan(whole[1][2])


def test_ties_count_against_the_observed_partition():
    assert exceedance(np.array([1.0, 1.0, 1.0, 0.0])[:, None])[0] == 0.75


@pytest.fixture(scope="module")
def study():
    """Three subjects against five in every one of the 56 ways, from one pass: the table, losses, and gradients."""
    torch.manual_seed(0)
    model, inputs = nn.Linear(4, 3).double(), torch.randn(SUBJECTS, 4, dtype=torch.float64)
    target = torch.randn(SUBJECTS, 3, dtype=torch.float64)
    observed = tuple(range(FIRST))
    ways = [observed, *(chosen for chosen in combinations(range(SUBJECTS), FIRST) if chosen != observed)]
    members = np.array(
        [[1 if subject in chosen else 2 for subject in range(SUBJECTS)] for chosen in ways], dtype=np.int8
    )
    plan = PermutationDesign((PairPermutations("a", "b", (), members),), {}, np.arange(SUBJECTS), (0,))
    recorder = SpectralRecorder(model, groups=["a", "b"], permutation_design=plan)
    with recorder.batch([0] * FIRST + [1] * (SUBJECTS - FIRST)) as batch:
        losses = (model(inputs) - target).square().mean(1)
        losses.mean().backward()
        batch.losses(losses)
    recorder.end_epoch()
    table = permutation_tests([recorder.spectra.permutations], recorder.layers, [("a", "b")])
    adjoint = 2 * (model(inputs) - target).detach() / 3 / SUBJECTS
    gradients = (adjoint[:, :, None] * inputs[:, None]).numpy()
    return table[table.per == "trajectory"].set_index("test"), losses.detach().numpy(), gradients


def test_a_test_of_losses_is_scipys_exact_one(study):
    table, losses, _ = study

    def ratio(x, y):
        return np.log2(x.mean() / y.mean())

    _assert_scipys(table.loc["permutation_loss"], losses, ratio)


def test_a_test_of_norms_is_scipys_exact_one(study):
    table, _, gradients = study

    def ratio(x, y):
        x, y = (gradients[np.asarray(side, dtype=int)].mean(0) for side in (x, y))
        return np.log2(np.linalg.norm(x) / np.linalg.norm(y))

    _assert_scipys(table.loc["permutation_scale"], np.arange(SUBJECTS), ratio)


def _assert_scipys(row, values, ratio):
    """At one epoch and one number per partition, the distance ranks partitions by how far they are from the mean."""
    a, b = values[:FIRST], values[FIRST:]
    centre = permutation_test((a, b), ratio, n_resamples=np.inf, vectorized=False).null_distribution.mean()
    # scipy.stats.permutation_test((a, b), ..., alternative="greater", n_resamples=inf): all 56 partitions
    expected = permutation_test(
        (a, b), lambda x, y: abs(ratio(x, y) - centre), alternative="greater", n_resamples=np.inf, vectorized=False
    )
    assert len(expected.null_distribution) == 56
    assert row.p == pytest.approx(expected.pvalue)
    assert row.log2_ratio == pytest.approx(ratio(a, b), abs=1e-5)
    assert row.excess_log2_ratio == pytest.approx(ratio(a, b) - centre, abs=1e-5)
