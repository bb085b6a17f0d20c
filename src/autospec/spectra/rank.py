"""The rank of a group's gradient: what bounds it, what is measured, how many directions carry it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from autospec.spectra.sums import LayerSums


def numerical_rank(spectra: Tensor, floor: Tensor) -> Tensor:
    """(reported, K) and (reported,) → (reported,): how many singular values stand above the noise floor."""
    return (spectra > floor[:, None].to(spectra)).sum(1).double().where(spectra.isfinite().all(1), torch.nan)


def effective_rank(spectra: Tensor, floor: Tensor) -> Tensor:
    """(reported,): the exponential of the entropy of the singular values above the floor, as shares of their sum.

    Roy & Vetterli, "The effective rank", EUSIPCO 2007. NaN for a gradient that is all noise.
    """
    kept = spectra.where(spectra > floor[:, None].to(spectra), 0.0)
    shares = kept / kept.sum(1, keepdim=True)
    return torch.special.entr(shares).sum(1).exp()


def rank_bound(sums: LayerSums) -> Tensor:
    """(reported,): ``min(rows_c, in, out, rank A_c, rank Δ_c)``: no more of a gradient stands above the noise floor.

    Rows are samples times positions. The ranks of A and Δ are the measured ones, where they are recorded: above
    ``eps √min(shape) ‖A_c‖`` with the shape of the gradient, likewise of Δ. What is below has ``σ_k(A) σ₁(Δ)``, and
    with it ``σ_k(∇)``, under the gradient's floor. Those of a weight that other modules use too are left out, since
    they are kept per use and the gradient is of all uses.
    """
    bound = sums.grouping.sums(sums.rows).double().clamp_max(min(sums.shape))
    for name, stack in ({} if sums.used_elsewhere else sums.stacks).items():
        measured = numerical_rank(stack.spectra(), _relative_floor(sums) * sums.norms()[name])
        bound = torch.minimum(bound, measured.cpu())
    return bound


def chain_bound(sums: LayerSums) -> Tensor:
    """(): the bound that the other layers of a linear chain put on the gradient's rank, of any group alike.

    Each backward pass adds a gradient of at most that rank, whose directions move with the weights. NaN where the
    measured rank is higher: then the layers are not called one after the other.
    """
    assert sums.chain is not None
    bound = min(sums.chain * sums.passes, *sums.shape)
    measured = numerical_rank(sums.gradient.spectra(), gradient_floor(sums))
    return torch.tensor(math.nan if (measured > bound).any() else bound, dtype=torch.float64)


def gradient_floor(sums: LayerSums) -> Tensor:
    """The noise floor of a gradient's singular values: ``eps √min(shape) ‖A_c‖ ‖Δ_c‖``.

    Rounding scales with the terms that are summed, not with the sum: near a stationary point they cancel. Where only
    gradients were taken (the aliased engine) it is ``eps max(shape) σ₁``.
    """
    if sums.only_gradients:
        return sums.eps * max(sums.shape) * sums.gradient.spectra()[:, 0].cpu()
    return _relative_floor(sums) * sums.norm_product()


def _relative_floor(sums: LayerSums) -> float:
    """The noise floor of a gradient relative to the norms of its factors."""
    return sums.eps * math.sqrt(min(sums.shape))
