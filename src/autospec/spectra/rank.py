"""The rank of a group's gradient: what bounds it, what is measured, how many directions carry it."""

from __future__ import annotations

import torch
from torch import Tensor


def numerical_rank(spectra: Tensor, floor: Tensor) -> Tensor:
    """(reported, K) and (reported,) → (reported,): how many singular values stand above the noise floor."""
    # a NaN is above nothing and would count as rank 0
    return (spectra > floor[:, None].to(spectra)).sum(1).double().where(spectra.isfinite().all(1), torch.nan)


def effective_rank(spectra: Tensor, floor: Tensor) -> Tensor:
    """(reported,): the exponential of the entropy of the singular values above the floor, as shares of their sum.

    Roy & Vetterli, "The effective rank", EUSIPCO 2007. NaN for a gradient that is all noise.
    """
    kept = spectra.where(spectra > floor[:, None].to(spectra), 0.0)
    shares = kept / kept.sum(1, keepdim=True)
    return torch.special.entr(shares).sum(1).exp()
