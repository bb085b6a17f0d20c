"""What a site sends of one weight's gradient ``∇ = Δᵀ A``: the gradient, its factors, or their leading directions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

GRADIENT, DAD, RANK_DAD = WAYS = ("gradient", "dad", "rank-dad")
"""The ways to exchange: every entry of the gradient; triangles of the factors; so many leading directions."""

ROUNDINGS = 16
"""So many roundings of float64, and the root of the number of rows, are added to a bound computed in float64."""


@dataclass(frozen=True)
class Part:
    """What stands for a part of a gradient (out × in): ``leftᵀ right``, and how far that may be from it.

    Attributes:
        left: (k, out), a triangle of the adjoints, or directions among outputs; no rows where ``right`` is all.
        right: (k, in), a triangle of the activations, or directions among inputs; the gradient itself (out, in).
        left_out: the Frobenius norm of what is left out is no larger; 0 where nothing is.
        leads: how many of the first k columns of ``[right left]`` are a triangle, zeros below the diagonal.
        rows: how many rows of samples it stands for.
    """

    left: Tensor
    right: Tensor
    left_out: float = 0.0
    leads: int = 0
    rows: int = 0

    def scaled(self, share: float) -> Part:
        """The same of a loss that counts ``share``."""
        if self.is_matrix:
            return replace(self, right=self.right * share)
        return replace(self, left=self.left * share, left_out=self.left_out * share)

    def gradient(self) -> Tensor:
        """(out, in) float64: the part of the gradient."""
        return self.right.double() if self.is_matrix else self.left.double().mT @ self.right.double()

    @property
    def is_matrix(self) -> bool:
        """Whether the gradient itself is sent."""
        return not len(self.left)


def matrix_part(gradient: Tensor, rows: int = 0) -> Part:
    """A part that is the gradient itself, (out, in), of so many rows."""
    return Part(gradient.mT[:0], gradient, rows=rows)


def exact_part(activation: Tensor, adjoint: Tensor) -> Part:
    """The factors with their rows rotated into one triangle: ``[A Δ] = Q R``, ``R = [R_A R_Δ]``.

    ``Δᵀ A = R_Δᵀ R_A``, and the singular values of ``A`` and ``Δ`` are those of ``R_A`` and ``R_Δ``: one rotation for
    both sides, since the triangles of two separate decompositions lose how the sides stand to one another. No row of
    the triangle is a sample's, unless there is one sample.

    Args:
        activation: (n, in), the rows of ``A``.
        adjoint: (n, out), those of ``Δ``.

    Returns:
        ``min(n, in + out)`` rows, in the dtype of the factors.

    Example:
        >>> a, d = torch.eye(4)[:, :2], torch.ones(4, 1)
        >>> exact_part(a, d).gradient()
        tensor([[1., 1.]], dtype=torch.float64)
    """
    width, dtype = activation.shape[1], torch.promote_types(activation.dtype, adjoint.dtype)
    triangle = torch.linalg.qr(torch.cat([activation.double(), adjoint.double()], dim=1), mode="r").R.to(dtype)
    return Part(triangle[:, width:], triangle[:, :width], leads=len(triangle), rows=len(activation))


def leading_part(
    activation: Tensor,
    adjoint: Tensor,
    rank: int,
    iterations: int = 2,
    tolerance: float = 0.0,
) -> Part:
    """The leading directions of ``Δᵀ A`` by power iterations on the factors; the product is never formed.

    Each iteration takes a block of directions through ``v → Δᵀ(A v)`` and back through ``u → Aᵀ(Δ u)``, orthonormal
    after each; what is sent is the projection ``Q (Qᵀ Δᵀ A)``. ``left_out`` is the Frobenius norm of what remains,
    of the numbers as they are sent, from the triangles of ``[Δᵀ -Q]`` and ``[Aᵀ P]``: no estimate. By Weyl's
    inequality no singular value moves by more, and by the triangle inequality no sum of parts by more than the sum.

    Args:
        activation: (n, in), the rows of ``A``.
        adjoint: (n, out), those of ``Δ``.
        rank: how many directions at most.
        iterations: how often the block goes there and back.
        tolerance: directions whose singular value is below this share of the largest are not sent.

    Returns:
        At most ``rank`` rows, in the dtype of the factors.
    """
    dtype = torch.promote_types(activation.dtype, adjoint.dtype)
    activation, adjoint = activation.double(), adjoint.double()
    rank = min(rank, *activation.shape, adjoint.shape[1])
    directions = _start(activation, rank)
    left = _orthonormal(adjoint.mT @ (activation @ directions))
    for _ in range(iterations):
        directions = _orthonormal(activation.mT @ (adjoint @ left))
        left = _orthonormal(adjoint.mT @ (activation @ directions))
    turn, values, right = torch.linalg.svd((adjoint @ left).mT @ activation, full_matrices=False)
    kept = max(1, int((values > tolerance * values[0]).sum()))
    left, right = (left @ turn[:, :kept]).mT.to(dtype), (values[:kept, None] * right[:kept]).to(dtype)
    return Part(left, right, left_out(activation, adjoint, left, right), rows=len(activation))


def left_out(activation: Tensor, adjoint: Tensor, left: Tensor, right: Tensor) -> float:
    """A bound on ``‖Δᵀ A - leftᵀ right‖`` in the Frobenius norm: its value and some roundings, in float64."""
    columns = torch.cat([adjoint, -left.double()]).mT  # (out, n + k)
    rows = torch.cat([activation, right.double()])  # (n + k, in)
    roundings = (ROUNDINGS + len(rows) ** 0.5) * torch.finfo(torch.float64).eps
    rounding = roundings * float(adjoint.norm() * activation.norm())
    if len(rows) >= min(activation.shape[1], adjoint.shape[1]):
        return float((columns @ rows).norm()) + rounding
    triangles = (torch.linalg.qr(side, mode="r").R for side in (columns, rows.mT))
    return float((next(triangles) @ next(triangles).mT).norm()) + rounding


def _orthonormal(columns: Tensor) -> Tensor:
    return torch.linalg.qr(columns).Q


def _start(activation: Tensor, rank: int) -> Tensor:
    """(in, rank) directions to begin with: random, and the same at every call."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(activation.shape[1], rank, generator=generator, dtype=torch.float64)
    return start.to(activation.device)
