import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import full_spectrum, with_spectrum

from autospec import singular_values
from autospec.spectra.singular import gram, of_gram, of_product

PRESCRIBED = [7.0, 3.0, 1.0, 1e-3, 1e-6]


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (40, 5), (5, 40)])
def test_a_prescribed_spectrum_is_found_to_the_last_digits(rows, columns):
    found = singular_values(with_spectrum(rows, columns, PRESCRIBED))
    assert torch.allclose(found, torch.tensor(PRESCRIBED, dtype=torch.float64), rtol=0, atol=7e-15)


def test_float32_is_as_exact_as_its_digits():
    matrix = with_spectrum(30, 12, PRESCRIBED).float()
    found = singular_values(matrix)
    assert found.dtype == torch.float64
    assert abs(found.numpy() - full_spectrum(matrix)).max() < 2e-7 * PRESCRIBED[0] * 0.1


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**20),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=40, deadline=None)
def test_defining_identities(shape, seed, dtype):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    values = singular_values(matrix)
    assert values.shape == (shape[0], min(shape[1:]))
    assert (values >= 0).all()
    assert (values.diff(dim=-1) <= 0).all()
    assert torch.allclose(values.square().sum(-1), matrix.double().square().sum((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_matrix_that_is_not_finite_leaves_the_others_alone(bad):
    matrices = torch.ones(2, 3, 3)
    matrices[0, 1, 1] = bad
    values = singular_values(matrices)
    assert values[0].isnan().all()
    assert torch.allclose(values[1], torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64), atol=1e-7)


def test_half_precision_and_tiny_values():
    assert singular_values(torch.eye(2, dtype=torch.bfloat16)).tolist() == [1.0, 1.0]
    tiny = singular_values(torch.diag(torch.tensor([3e-38, 1e-38])))
    assert torch.allclose(tiny / 1e-38, torch.tensor([3.0, 1.0], dtype=torch.float64), rtol=1e-5)


def test_empty_matrices_have_no_or_zero_singular_values():
    assert singular_values(torch.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize(("rows", "inputs", "out"), [(1, 6, 4), (3, 6, 4), (9, 6, 4), (0, 6, 4)])
def test_the_product_is_never_formed_but_its_spectrum_is_right(rows, inputs, out):
    activation = torch.randn(rows, inputs, dtype=torch.float64)
    adjoint = torch.randn(rows, out, dtype=torch.float64)
    expected = full_spectrum(adjoint.T @ activation)
    assert abs(of_product(activation, adjoint).numpy() - expected).max() < 1e-13


def test_equation_4_of_the_paper_does_not_hold():
    activation, adjoint = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
    assert of_product(activation, adjoint).tolist() == [0.0, 0.0]
    assert (singular_values(activation) * singular_values(adjoint)).tolist() == [1.0, 0.0]


@given(seed=st.integers(0, 2**20), rows=st.integers(1, 8), inputs=st.integers(1, 6), out=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_horns_inequality(seed, rows, inputs, out):
    generator = torch.Generator().manual_seed(seed)
    activation = torch.randn(rows, inputs, generator=generator, dtype=torch.float64)
    adjoint = torch.randn(rows, out, generator=generator, dtype=torch.float64)
    product = of_product(activation, adjoint)
    factors = zip(singular_values(activation), singular_values(adjoint), strict=False)
    bounds = torch.tensor([float(a * b) for a, b in factors], dtype=torch.float64).cumprod(0)
    assert (product[: len(bounds)].cumprod(0) <= bounds * (1 + 1e-10)).all()


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="at least 2 dimensions, not 1"):
        singular_values(torch.zeros(3))
    with pytest.raises(ValueError, match="exact in float64 only"):
        of_gram(torch.eye(2))


@pytest.mark.parametrize("shape", [(5, 40, 44), (2, 3, 40, 44), (40, 44), (0, 40, 44)])
def test_gram_matrices_of_any_batch_are_decomposed_to_the_same_last_bit(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    grams = gram(matrices)
    at_once = of_gram(grams)
    assert at_once.shape == grams.shape[:-1]
    one_by_one = [of_gram(one) for one in grams.flatten(0, -3)] if grams.dim() > 2 else [of_gram(grams)]
    assert all(torch.equal(*pair) for pair in zip(one_by_one, at_once.view(-1, at_once.shape[-1]), strict=True))
    assert torch.allclose(at_once, torch.as_tensor(full_spectrum(matrices)), rtol=1e-6, atol=0)
