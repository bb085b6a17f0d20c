"""Leading singular subspaces of the groups' gradients, and the principal angles between them.

The spectrum says how strongly a group pulls a weight, the leading singular vectors in which directions: the left ones
among the layer's outputs, the right ones among its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST_FLOORS = 10.0
"""A subspace is known where the gap below its last singular value is at least so many noise floors.

Rounding, of norm up to the floor, turns it by at most about floor / gap = 0.1 rad (Wedin 1972, BIT 12:99). Where
singular values are tied, or below the floor, the vectors behind them could be any.
"""


@dataclass(frozen=True)
class Subspaces:
    """Orthonormal bases of every reported group's leading subspaces: NaN where a subspace is not known.

    ``output`` (reported, out, k) of the left singular vectors, ``input`` (reported, in, k) of the right ones.
    """

    output: Tensor
    input: Tensor

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        return self.output, self.input


def subspaces_of(gradients: Tensor, floor: Tensor, directions: int) -> Subspaces:
    """The leading subspaces of gradients (reported, out, in) with noise floors (reported,).

    Their dimension is ``directions``, or the smaller side of the matrix where that is less.
    """
    directions = min(directions, *gradients.shape[1:])
    finite = gradients.flatten(1).isfinite().all(1)
    # a NaN would make the SVD of the whole stack raise
    left, values, right = torch.linalg.svd(gradients.where(finite[:, None, None], 0.0), full_matrices=False)
    # where all directions are taken nothing lies below: the gap is the last value itself
    below = torch.nn.functional.pad(values, (0, 1))[:, directions]
    gap = values[:, directions - 1] - below
    known = (finite & (gap > FEWEST_FLOORS * floor.to(gap)))[:, None, None]
    return Subspaces(left[..., :directions].where(known, torch.nan), right.mT[..., :directions].where(known, torch.nan))


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """The angles in radians between the spans of orthonormal columns (..., n, k), ascending; NaN for a NaN basis.

    Cosines are singular values of ``aᵀ b``, sines those of ``b - a aᵀ b``; each angle is taken from the one that keeps
    its digits (Björck & Golub 1973, Math Comp 27:579; the same as ``scipy.linalg.subspace_angles``).
    """
    a, b = torch.broadcast_tensors(a, b)
    known = (a.isfinite() & b.isfinite()).flatten(-2).all(-1)[..., None]
    a, b = (basis.where(known[..., None], 0.0) for basis in (a, b))
    inner = a.mT @ b
    cosines = torch.linalg.svdvals(inner).clamp(0.0, 1.0)
    # the largest sine belongs to the smallest cosine, hence the turn
    sines = torch.linalg.svdvals(b - a @ inner).clamp(0.0, 1.0).flip(-1)
    angles = torch.where(cosines**2 >= 0.5, sines.asin(), cosines.acos())
    return angles.where(known, torch.nan)
