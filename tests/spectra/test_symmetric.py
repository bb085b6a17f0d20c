"""Symmetric products and eigenvalues against torch's own, of every layout, with the threads that torch has."""

import numpy as np
import pytest
import torch

from autospec.spectra import symmetric
from autospec.spectra.symmetric import eigenvalues, times_own_transpose


def _matrix(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


LAYOUTS = {
    "by rows": lambda: _matrix(7, 5),
    "by columns": lambda: _matrix(5, 7).mT,
    "a batch": lambda: _matrix(3, 7, 5),
    "a batch by columns": lambda: _matrix(3, 5, 7).mT,
    "with gaps": lambda: _matrix(14, 10)[::2, ::2],
    "a batch with gaps": lambda: _matrix(5, 3, 7).transpose(0, 1),
    "two dimensions of batches": lambda: _matrix(2, 3, 4, 6),
    "expanded": lambda: _matrix(4, 6).expand(3, 4, 6),
    "one row": lambda: _matrix(1, 6),
    "without columns": lambda: _matrix(3, 0),
    "of no batch": lambda: _matrix(0, 3, 4),
    "needing a gradient": lambda: _matrix(3, 4).requires_grad_(),
    "in float32": lambda: _matrix(6, 3, dtype=torch.float32),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_product_with_the_own_transpose_is_that_of_a_loop(layout):
    matrix = LAYOUTS[layout]()
    expected = torch.einsum("...ik,...jk->...ij", matrix.double(), matrix.double())
    found = times_own_transpose(matrix)
    assert found.dtype == matrix.dtype
    assert not found.requires_grad
    within = 1e-6 if matrix.dtype == torch.float32 else 1e-14
    torch.testing.assert_close(found.double(), expected.detach(), rtol=within, atol=within)
    assert torch.equal(found, found.mT)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_own_rows_and_is_no_warning(bad):
    matrix = _matrix(3, 4)
    matrix[1, 2] = bad
    found = times_own_transpose(matrix)
    assert not found[1].isfinite().all()
    assert found[0, 0].isfinite()
    assert found[2, 0].isfinite()


@pytest.mark.parametrize("shape", [(5, 5), (3, 5, 5), (2, 3, 4, 4), (1, 1)])
def test_eigenvalues_are_those_of_the_lower_triangle(shape):
    whole = times_own_transpose(_matrix(*shape))
    expected = torch.linalg.eigvalsh(whole)
    torch.testing.assert_close(eigenvalues(whole), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(eigenvalues(whole.tril()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2])
def test_numpy_takes_as_many_threads_as_torch(count, monkeypatch):
    before, taken = torch.get_num_threads(), []
    blas = symmetric._blas()
    seen = lambda: {library.num_threads for library in blas.lib_controllers}  # noqa: E731
    own = np.linalg.eigvalsh
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda matrix: (taken.append(seen()), own(matrix))[1])
    outside = seen()
    torch.set_num_threads(count)
    try:
        eigenvalues(torch.eye(3, dtype=torch.float64))
    finally:
        torch.set_num_threads(before)
    if not outside:
        pytest.skip("numpy's BLAS here is none whose threads can be set")
    assert taken == [{count}]
    assert seen() == outside
