import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import full_spectrum

from autospec import GradientFactors, group_gradients
from autospec.spectra.gradient import GradientSum
from autospec.spectra.groups import SampleGroups, grouping


def _random(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@given(
    n=st.integers(1, 9),
    positions=st.integers(1, 3),
    inputs=st.integers(1, 5),
    out=st.integers(1, 5),
    groups=st.integers(1, 3),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=40, deadline=None)
def test_groups_add_up_to_the_gradient(n, positions, inputs, out, groups, seed):
    activation, adjoint = _random(seed, n, positions, inputs), _random(seed + 1, n, positions, out)
    labels = torch.randint(groups, (n,), generator=torch.Generator().manual_seed(seed))
    parts = group_gradients(activation, adjoint, labels, groups)
    whole = torch.einsum("npo,npi->oi", adjoint, activation)
    assert parts.shape == (groups, out, inputs)
    assert torch.allclose(parts.sum(0), whole, atol=1e-12)


def test_samples_of_no_group_are_in_no_part():
    parts = group_gradients(torch.ones(3, 2), torch.ones(3, 1), torch.tensor([0, -1, -1]), 2)
    assert parts[0].tolist() == [[1.0, 1.0]]
    assert parts[1].tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("group", "message"),
    [(torch.tensor([0, 1]), "one label for each of the 3"), (torch.tensor([0, 1, 2]), "between -1 and 1")],
)
def test_labels_that_do_not_fit(group, message):
    with pytest.raises(ValueError, match=message):
        group_gradients(torch.ones(3, 2), torch.ones(3, 2), group, 2)


def test_factors_that_do_not_fit():
    with pytest.raises(ValueError, match="must agree"):
        GradientFactors(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="2 to 4 dimensions, not 1"):
        GradientFactors(torch.ones(3), torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "batches"), [(3, 1), (3, 4), (40, 1), (7, 3)])
def test_both_routes_give_the_spectra_of_the_summed_gradient(n, batches, dtype):
    """Few rows: from the factors; many rows, or more batches than that: from the gradient."""
    groups = grouping(("a", "b"), {"both": ("a", "b")})
    total = GradientSum((16, 20), groups)
    formed = torch.zeros(3, 16, 20, dtype=torch.float64)
    scale = 0.0
    for batch in range(batches):
        activation, adjoint = _random(batch, n, 20, dtype=dtype), _random(99 + batch, n, 16, dtype=dtype)
        labels = torch.arange(n) % 3 - 1
        total.add(GradientFactors(activation, adjoint), SampleGroups.of(labels, groups.cells))
        for cell in range(3):
            rows = labels == (cell if cell < 2 else -1)
            formed[cell] += adjoint[rows].double().T @ activation[rows].double()
        scale += float(activation.norm() * adjoint.norm())
    expected = [formed.sum(0), formed[0], formed[1], formed[0] + formed[1]]
    tolerance = (1e-10 if dtype == torch.float64 else 1e-5) * scale
    for row, matrix in zip(total.spectra(), expected, strict=True):
        assert abs(row.numpy() - full_spectrum(matrix)).max() < tolerance
    inner = torch.stack(expected).flatten(1) @ torch.stack(expected).flatten(1).T
    assert torch.allclose(total.inner_products(), inner, atol=tolerance * scale)
    assert torch.allclose(total.gradients(), torch.stack(expected), atol=tolerance)


@pytest.mark.parametrize("n", [2, 40])
def test_parts_of_a_weights_rows_are_placed_where_they_stand_however_few_their_rows_are(n):
    """A cross-attention's three projections, of rows that would be few enough to be kept for a whole weight."""
    groups, labels = grouping(("a",), {}), torch.zeros(n, dtype=torch.int64)
    total, expected = GradientSum((18, 8), groups), []
    for place in range(3):
        activation, adjoint = _random(place, n, 8), _random(9 + place, n, 6)
        total.add(GradientFactors(activation, adjoint, first_row=6 * place), SampleGroups.of(labels, groups.cells))
        expected.append(adjoint.T @ activation)
    assert torch.allclose(total.gradients()[1], torch.cat(expected), atol=1e-12)
    assert abs(total.spectra()[1].numpy() - full_spectrum(torch.cat(expected))).max() < 1e-12


def test_the_product_of_one_batch_is_kept_in_its_own_precision_and_gives_the_same_spectra():
    cells = SampleGroups.of(torch.tensor([0, 1, 1, 0, 1, 0, 0, 1]), 3)
    factors = GradientFactors(_random(1, 8, 6, dtype=torch.float32), _random(2, 8, 5, dtype=torch.float32))
    one, precise = (GradientSum((5, 6), grouping(("a", "b"), {})) for _ in range(2))
    one.add(factors, cells)
    precise.replace(one.held(torch.float64), torch.float32)
    assert one.fits_float32
    assert one.held(torch.float32).dtype == torch.float32
    assert not precise.fits_float32
    assert torch.equal(one.spectra(), precise.spectra())
    assert torch.equal(one.cosines(), precise.cosines())
    first = one.held(torch.float32).clone()
    one.add(factors, cells)
    assert not one.fits_float32
    assert torch.equal(one.held(torch.float64), 2 * first.double())
    assert torch.equal(one.held(torch.float64)[2], torch.zeros(5, 6, dtype=torch.float64))


def test_few_rows_and_none_at_all_are_held_too():
    cells = SampleGroups.of(torch.tensor([0, 1]), 3)
    factors = GradientFactors(_random(1, 2, 6, dtype=torch.float32), _random(2, 2, 5, dtype=torch.float32))
    total = GradientSum((5, 6), grouping(("a", "b"), {}))
    assert total.fits_float32
    assert torch.equal(total.held(torch.float32), torch.zeros(3, 5, 6))
    total.add(factors, cells)
    assert not total.fits_float32  # of factors, which are multiplied in float64
    expected = factors.adjoint[0, 0].double().T @ factors.activation[0, 0].double()
    assert torch.allclose(total.held(torch.float64)[0], expected, rtol=0, atol=1e-14)


def test_a_margin_is_the_sum_of_its_groups_and_a_nan_stays_in_its_own():
    groups = grouping(("a", "b", "c"), {"ab": ("a", "b")})
    sums = groups.sums(torch.tensor([1.0, 2.0, float("nan"), 8.0]))
    assert sums[[1, 2, 4]].tolist() == [1.0, 2.0, 3.0]
    assert sums[[0, 3]].isnan().all()
