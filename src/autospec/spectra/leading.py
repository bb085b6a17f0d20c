"""The leading singular values of matrices that change little, by block iteration, with a certificate.

One round multiplies a matrix and its transpose with a block of ``b`` vectors, where a full decomposition multiplies
with all of them. What is certified is an interval for the i-th singular value itself, not for some singular value
near an estimate: with ``U`` an orthonormal basis of ``∇V`` and ``Z = ∇ᵀU``, interlacing gives ``σ_i(Z) ≤ σ_i(∇)``, and
since ``(I - UUᵀ)∇V = 0``,

    ∇ᵀ∇ = ZZᵀ + ∇ᵀ(I - UUᵀ)∇ ≤ ZZᵀ + c² (I - VVᵀ)   with   c² = ‖∇‖² - ‖Z‖²  (Frobenius),

whose eigenvalues are those of a matrix of twice the block's size, and ``c²`` for the rest (Weyl's monotonicity theorem,
Horn & Johnson, Matrix Analysis, 4.3.12). No singular value can be missed: what the block has not seen is in ``c``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Leading:
    """``values`` (..., k): estimates, descending; ``bounds`` (..., k): how far the i-th singular value can be off."""

    values: Tensor
    bounds: Tensor

    def holds(self, tolerance: float) -> bool:
        """Whether every bound lies within ``tolerance`` of its matrix's first singular value."""
        return bool((self.bounds <= tolerance * self.values[..., :1]).all())


def of_exact(spectra: Tensor, leading: int) -> Leading:
    """The first values of full spectra by way of a Gram matrix in float64, with the rounding of that.

    Eigenvalues are off by up to about ``K eps σ₁²`` (Higham, Accuracy and Stability, 3.5: the product; Golub & Van Loan
    8.3: the eigenvalues), which the root enlarges where they are small.
    """
    values = spectra[..., :leading]
    rounding = 4 * spectra.shape[-1] * _EPS * spectra[..., :1].square()
    return Leading(values, (values.square() + rounding).sqrt() - values + _EPS * spectra[..., :1])


def block_round(matrices: Tensor, squared_norms: Tensor, block: Tensor, leading: int) -> tuple[Leading, Tensor]:
    """One round of block iteration: what it certifies, and the block of the next round.

    Args:
        matrices: (..., m, n) float64, finite.
        squared_norms: (...,) the squared Frobenius norms of the matrices.
        block: (..., n, b) with orthonormal columns, ``leading ≤ b`` and ``b ≤ m, n``.
        leading: how many values.
    """
    # orthonormal again at each round, or all columns would turn to the first singular vector
    basis = torch.linalg.qr(matrices @ block).Q
    seen = matrices.mT @ basis
    left, values, _ = torch.linalg.svd(seen, full_matrices=False)
    rounding = 4 * max(matrices.shape[-2:]) * _EPS
    # a difference of nearly equal numbers: its rounding, in units of their size, is added to the bound
    unseen = (squared_norms - seen.flatten(-2).square().sum(-1)).clamp_min(0.0) + rounding * squared_norms
    upper = _upper_bounds(seen, block, unseen, leading)
    estimates = values[..., :leading]
    return Leading(estimates, (upper - estimates).clamp_min(0.0) + rounding * squared_norms.sqrt()[..., None]), left


def _upper_bounds(seen: Tensor, block: Tensor, unseen: Tensor, leading: int) -> Tensor:
    """(..., k): roots of the first eigenvalues of ``ZZᵀ + c² (I - VVᵀ)``, ``c²`` (...,) being ``unseen``.

    In a basis of ``[Z V]`` the matrix is small; outside it, every eigenvalue is ``c²``.
    """
    width = block.shape[-1]
    small = torch.linalg.qr(torch.cat([seen, block], -1), mode="r").R
    of_seen, of_block = small[..., :width], small[..., width:]
    c = unseen[..., None]
    eigenvalues = torch.linalg.eigvalsh(of_seen @ of_seen.mT - c[..., None] * (of_block @ of_block.mT)).flip(-1)
    # the next ones are zero where [Z V] has fewer columns than are asked for: the bound is c² there
    largest = eigenvalues[..., :leading].clamp_min(0.0)
    rounding = 4 * small.shape[-1] * _EPS * (seen.square().sum((-2, -1)) + unseen)
    return (c + largest + rounding[..., None]).sqrt()


def block_width(spectra: Tensor, leading: int) -> int | None:
    """The smallest block that certifies the first values of matrices with these spectra, (..., K); None if none pays.

    What a block of ``b`` vectors leaves unseen, ``√(σ_{b+1}² + …)``, must lie below half of the last value; a block of
    more than a quarter of all vectors is not cheaper than decomposing.
    """
    size = spectra.shape[-1]
    if leading > size:
        return None
    unseen = spectra.square().flip(-1).cumsum(-1).flip(-1).sqrt()
    last = spectra[..., leading - 1 : leading]
    seen = (unseen <= last / 2).reshape(-1, size).all(0)
    for width in range(8 * -(-(leading + 4) // 8), size // 4 + 1, 8):
        if bool(seen[width]):
            return width
    return None


def starting_block(shape: tuple[int, ...], width: int, like: Tensor) -> Tensor:
    """(..., n, width): orthonormal columns, the same at every call; no random state of the process is touched."""
    generator = torch.Generator().manual_seed(width)
    drawn = torch.randn((*shape, width), dtype=torch.float64, generator=generator)
    return torch.linalg.qr(drawn.to(like.device)).Q
