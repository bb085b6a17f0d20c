"""The two factors of a gradient: norms and products of samples in whatever order their numbers lie in memory."""

import itertools

import pytest
import torch

from autospec.spectra.factors import GradientFactors, squared_norm
from autospec.spectra.groups import SampleGroups


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_norms_of_samples_in_any_layout(order, size):
    torch.manual_seed(0)
    shape = (5, 1, 7, 3)
    lying = torch.randn([shape[dimension] for dimension in order]) * size
    samples = lying.permute([order.index(dimension) for dimension in range(4)])
    assert samples.shape == shape
    expected = samples.double().square().flatten(1).sum(1)
    assert torch.allclose(squared_norm(samples), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("widths", [(1, 4), (4, 1), (1, 1), (3, 4)])
@pytest.mark.parametrize("time_first", [False, True])
def test_products_of_groups_by_sample_or_by_rows(widths, time_first):
    torch.manual_seed(0)
    sides = [torch.randn(9, 6, width, dtype=torch.float64) for width in widths]
    laid = [side.transpose(0, 1).contiguous().transpose(0, 1) if time_first else side for side in sides]
    cells = SampleGroups.of(torch.tensor([0, 1, 1, -1, 0, 1, 0, 0, 1]), 3)
    products = GradientFactors(*laid).products(cells)
    for cell, samples in enumerate(cells.samples):
        expected = torch.einsum("npo,npi->oi", sides[1][samples], sides[0][samples])
        assert torch.allclose(products[cell], expected, rtol=0, atol=1e-12)
