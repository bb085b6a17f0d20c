"""Certified leading singular values against full decompositions of matrices with a prescribed spectrum."""

import pytest
import torch
from references import full_spectrum, with_spectrum

from autospec.spectra.leading import block_round, block_width, of_exact, starting_block

LEADING = 6

SPECTRA = {
    "falls fast": [0.7**place for place in range(48)],
    "falls slowly": [0.97**place for place in range(48)],
    "flat": [1.0] * 48,
    "in pairs": [0.8 ** (place // 2) for place in range(48)],
    "of low rank": [1.0, 0.5, 0.25] + [0.0] * 45,
    "tiny": [1e-30 * 0.6**place for place in range(48)],
    "one stands out": [1.0] + [1e-4] * 47,
    "zero": [0.0] * 48,
}


def _rounds(matrix, width, rounds):
    block = starting_block((matrix.shape[1],), width, matrix)
    for _ in range(rounds):
        found, block = block_round(matrix, matrix.square().sum(), block, LEADING)
        yield found


@pytest.mark.parametrize("width", [LEADING, 12])
@pytest.mark.parametrize("name", SPECTRA)
def test_every_bound_holds_after_every_round(name, width):
    matrix = with_spectrum(60, 48, SPECTRA[name])
    true = torch.from_numpy(full_spectrum(matrix))[:LEADING]
    for found in _rounds(matrix, width, 8):
        assert ((found.values - true).abs() <= found.bounds).all()
        assert (found.bounds >= 0).all()


@pytest.mark.parametrize("name", ["falls fast", "of low rank", "tiny"])
def test_bounds_become_small_where_the_rest_is_small(name):
    *_, last = _rounds(with_spectrum(60, 48, SPECTRA[name]), 12, 8)
    assert last.holds(1e-6)


def test_a_value_that_the_block_misses_is_within_the_bound():
    """The block is orthogonal to the first singular vector: the residual is zero, and says nothing of it."""
    matrix = torch.diag(torch.tensor([5.0, 3.0, 2.0, 1.0], dtype=torch.float64))
    block = torch.eye(4, dtype=torch.float64)[:, 1:3]
    found, _ = block_round(matrix, matrix.square().sum(), block, 2)
    assert found.values.tolist() == pytest.approx([3.0, 2.0])
    assert (found.values + found.bounds >= torch.tensor([5.0, 3.0])).all()
    assert not found.holds(1e-6)


def test_matrices_are_treated_each_for_itself():
    matrices = torch.stack([with_spectrum(60, 48, SPECTRA[name], seed) for seed, name in enumerate(SPECTRA)])
    block = starting_block((len(SPECTRA), 48), 12, matrices)
    together, _ = block_round(matrices, matrices.square().sum((1, 2)), block, LEADING)
    for place, matrix in enumerate(matrices):
        alone, _ = block_round(matrix, matrix.square().sum(), block[place], LEADING)
        assert torch.allclose(together.values[place], alone.values, rtol=1e-9, atol=0)


def test_the_block_is_as_wide_as_a_certificate_needs():
    falling = torch.tensor([0.5**place for place in range(200)], dtype=torch.float64)
    assert block_width(falling, 16) == 24
    slower = torch.tensor([0.95**place for place in range(200)], dtype=torch.float64)
    width = block_width(slower, 8)
    assert width % 8 == 0
    assert slower[width:].norm() <= slower[7] / 2 < slower[width - 8 :].norm()
    assert block_width(torch.stack([falling, slower]), 8) == width
    assert block_width(torch.ones(200, dtype=torch.float64), 8) is None
    assert block_width(falling[:64], 16) is None  # 24 of 64 vectors are not cheaper than all
    assert block_width(falling[:8], 16) is None


def test_the_rounding_of_exact_values_is_bounded():
    matrix = with_spectrum(40, 30, [0.3**place for place in range(30)])
    spectra = torch.linalg.eigvalsh(matrix.mT @ matrix).clamp_min(0).sqrt().flip(-1)
    found = of_exact(spectra, 20)
    true = torch.from_numpy(full_spectrum(matrix))[:20]
    assert ((found.values - true).abs() <= found.bounds).all()
    assert found.bounds[0] < 1e-13
    assert found.bounds[-1] < 1e-6
