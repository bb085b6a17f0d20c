"""Parts of a gradient: exact ones are exact, of leading directions the bound holds."""

import pytest
import torch
from references import with_spectrum

from autospec.sites import exact_part, leading_part
from autospec.sites.people import withheld

SHAPES = [(1, 3, 2), (5, 30, 20), (40, 30, 20), (100, 6, 50)]


def _factors(shape, dtype):
    rows, width, out = shape
    return torch.randn(rows, width, dtype=dtype), torch.randn(rows, out, dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_triangle_for_both_sides_keeps_gradient_and_spectra(shape):
    activation, adjoint = _factors(shape, torch.float64)
    part = exact_part(activation, adjoint)
    expected = adjoint.mT @ activation
    assert torch.allclose(part.gradient(), expected, rtol=0, atol=1e-12 * float(expected.norm()))
    for triangle, side in ((part.right, activation), (part.left, adjoint)):
        values = torch.linalg.svdvals(side)
        assert torch.allclose(
            torch.linalg.svdvals(triangle)[: len(values)], values, rtol=0, atol=1e-12 * float(values[0])
        )
    assert len(part.left) == min(shape[0], shape[1] + shape[2])
    assert part.rows == shape[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 4, 64])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_more_is_left_out_than_the_bound(shape, rank, dtype):
    activation, adjoint = _factors(shape, dtype)
    part = leading_part(activation, adjoint, rank)
    expected = adjoint.double().mT @ activation.double()
    off = float((part.gradient() - expected).norm())
    assert off <= part.left_out <= off * (1 + 1e-6) + 1e-11 * float(activation.norm() * adjoint.norm())
    assert len(part.left) <= rank


def test_leading_directions_are_the_best_there_are_where_singular_values_fall_off():
    activation = torch.eye(20, dtype=torch.float64)
    adjoint = with_spectrum(20, 12, [2.0**-k for k in range(12)])
    part = leading_part(activation, adjoint, rank=3, iterations=4)
    best = sum(4.0**-k for k in range(3, 12)) ** 0.5
    assert part.left_out == pytest.approx(best, rel=1e-4)
    assert torch.linalg.svdvals(part.gradient())[:3].tolist() == pytest.approx([1.0, 0.5, 0.25], rel=1e-4)


def test_directions_below_the_tolerance_are_not_sent():
    activation = torch.eye(20, dtype=torch.float64)
    adjoint = with_spectrum(20, 12, [1.0, 0.5, 1e-3, 1e-4])
    part = leading_part(activation, adjoint, rank=8, tolerance=0.01)
    assert len(part.left) == 2
    assert part.left_out == pytest.approx((1e-6 + 1e-8) ** 0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([40, 30], [False, False]),
        ([40, 12, 20], [False, True, True]),  # 12 would be the rest
        ([40, 12, 9, 20], [False, True, True, False]),  # 21 are enough to hide among
        ([12, 16], [True, True]),
    ],
)
def test_what_is_withheld_cannot_be_had_by_difference(sizes, expected):
    assert withheld(sizes, 15) == expected
