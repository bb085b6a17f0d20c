"""Fully connected layers."""

from __future__ import annotations

import math

from torch import Tensor, nn

from autospec.capture.rules.registry import LayerCall, register_rule
from autospec.spectra.factors import GradientFactors


@register_rule(nn.Linear)
def linear(layer: nn.Linear, call: LayerCall) -> dict[str, GradientFactors]:
    """``y = x Wᵀ + b`` on the last dimension: every leading position is a row."""
    return {"weight": GradientFactors(rows_of(call.activation), rows_of(call.adjoint))}


@register_rule("transformers.pytorch_utils.Conv1D")
def linear_by_columns(layer: nn.Module, call: LayerCall) -> dict[str, GradientFactors]:
    """``y = x W + b``, as the GPT-2 of Hugging Face has it: the weight's matrix is (in × out)."""
    return {"weight": GradientFactors(rows_of(call.activation), rows_of(call.adjoint), transposed=True)}


def rows_of(tensor: Tensor) -> Tensor:
    """A tensor (n, ..., width) as (n, positions, width); one row alone, (width,), as (1, 1, width)."""
    if not tensor.dim():
        raise ValueError("expects a batch of samples first, got a number")
    if tensor.dim() < 2:
        tensor = tensor[None]
    return tensor.reshape(len(tensor), math.prod(tensor.shape[1:-1]), tensor.shape[-1])
