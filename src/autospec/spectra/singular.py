"""Singular values, exactly: the route with the least work that keeps the digits of its input."""

from __future__ import annotations

import torch
from torch import Tensor

LARGE = 2**14
"""From so many numbers on a Gram matrix is decomposed by itself on a processor: 128 KiB in float64."""


def singular_values(matrix: Tensor) -> Tensor:
    """The singular values of one matrix or a batch, descending.

    A matrix in float32 or less goes through the eigenvalues of its Gram matrix in float64, whose error of about
    1e-8 · σ₁ is below that of a float32 SVD; a float64 matrix through a QR along its long side and the SVD of the
    triangle. A matrix that holds NaN or infinity has NaN for all its singular values.

    Args:
        matrix: (..., m, n), of any floating dtype.

    Returns:
        (..., min(m, n)) in float64.

    Raises:
        ValueError: It has fewer than two dimensions.

    Example:
        >>> singular_values(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
        tensor([4., 3.], dtype=torch.float64)
    """
    if matrix.dim() < 2:
        raise ValueError(f"a matrix has at least 2 dimensions, not {matrix.dim()}")
    return of_matrix(on_capable_device(matrix.detach()).double(), matrix.dtype)


def of_matrix(matrix: Tensor, precision: torch.dtype) -> Tensor:
    """The singular values of a float64 matrix whose digits are worth ``precision``: see ``singular_values``."""
    tall = matrix if matrix.shape[-2] >= matrix.shape[-1] else matrix.mT
    if 0 in tall.shape:
        return tall.new_zeros(tall.shape[:-2] + tall.shape[-1:])
    if precision != torch.float64:
        return of_gram(gram(matrix))
    finite = tall.sum((-2, -1)).isfinite()  # one pass, where looking at every element takes several
    if not finite.all():
        tall = tall.where(finite[..., None, None], 0.0)
    # the SVD of a tall matrix costs several times that of its triangle
    return torch.linalg.svdvals(triangle(tall)).where(finite[..., None], torch.nan)


def gram(matrix: Tensor) -> Tensor:
    """The Gram matrix along the shorter side: ``(..., m, n) → (..., k, k)`` with k = min(m, n)."""
    return matrix @ matrix.mT if matrix.shape[-2] < matrix.shape[-1] else matrix.mT @ matrix


def of_gram(gram: Tensor) -> Tensor:
    """The singular values of any matrix with this Gram matrix, descending; rounding below zero becomes zero.

    Args:
        gram: (..., k, k) float64, of which only the lower triangle is read.

    Returns:
        (..., k) float64; NaN where the matrix holds NaN or infinity, as the trace of its Gram matrix does then.

    Raises:
        ValueError: for a Gram matrix that is not in float64.
    """
    if gram.dtype != torch.float64:
        raise ValueError(f"the Gram route is exact in float64 only, not in {gram.dtype}")
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    finite = trace.isfinite()
    all_finite = bool(finite.all())
    if not all_finite:
        gram = gram.where(finite[..., None, None], 0.0)
    scale = trace.where(finite, 0.0).clamp_min(torch.finfo(torch.float64).tiny)[..., None]
    eigenvalues = _eigenvalues(gram, scale[..., None])
    values = (eigenvalues.clamp_min(0.0) * scale).sqrt().flip(-1)  # eigenvalues come in ascending order
    return values if all_finite else values.where(finite[..., None], torch.nan)


def _eigenvalues(gram: Tensor, scale: Tensor) -> Tensor:
    """Those of ``gram / scale``, of trace one: squares of tiny gradients would leave the range of the eigensolver."""
    if gram.dim() == 2 or gram.numel() == 0 or gram.shape[-1] ** 2 < LARGE or gram.device.type != "cpu":
        return torch.linalg.eigvalsh(gram / scale)
    # one at a time: what the solver copies of all is memory had anew, which costs more than a call
    pairs = zip(gram.flatten(0, -3), scale.flatten(0, -3), strict=True)
    return torch.stack([torch.linalg.eigvalsh(one / of_one) for one, of_one in pairs]).view(gram.shape[:-1])


def of_product(activation: Tensor, adjoint: Tensor) -> Tensor:
    """The singular values of ``Δᵀ A`` from its factors, without forming it: the core ``R_Δ R_Aᵀ`` of their QRs.

    Least work where there are fewer rows than columns.

    Args:
        activation: (rows, in).
        adjoint: (rows, out).

    Returns:
        (min(in, out),) in float64, zeros beyond the rank.
    """
    activation, adjoint = (on_capable_device(factor.detach()).double() for factor in (activation, adjoint))
    values = activation.new_zeros(min(activation.shape[1], adjoint.shape[1]))
    if 0 in activation.shape or 0 in adjoint.shape:
        return values
    if not (activation.isfinite().all() and adjoint.isfinite().all()):  # else svdvals would raise
        return values.fill_(torch.nan)
    core = triangle(adjoint.mT) @ triangle(activation.mT).mT
    of_core = torch.linalg.svdvals(core)[: len(values)]
    values[: len(of_core)] = of_core
    return values


def triangle(matrix: Tensor) -> Tensor:
    """The R of a QR decomposition: (..., min(m, n), n), with the singular values of ``matrix``."""
    return torch.linalg.qr(matrix, mode="r").R


def is_zero(tensor: Tensor) -> bool:
    """Whether all entries are zero; a NaN is not."""
    # the norm is one quick pass, in which squares of tiny numbers vanish
    return not bool(torch.linalg.vector_norm(tensor)) and not bool(tensor.any())


def padded(values: Tensor, width: int) -> Tensor:
    """Singular values with zeros appended up to ``width``, as far as a matrix of that many columns has them."""
    return torch.nn.functional.pad(values, (0, width - values.shape[-1]))


def on_capable_device(tensor: Tensor) -> Tensor:
    """The tensor where float64 exists: Apple's GPUs have none, so there the linear algebra runs on the CPU."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor
