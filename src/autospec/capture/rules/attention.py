"""Multi-head attention: four projections, of which the adjoints of three are hidden inside the layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autospec.capture.rules.registry import LayerCall, register_rule
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors

SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def weights(layer: nn.MultiheadAttention) -> tuple[str, ...]:
    """The names of the layer's projections."""
    return ("in_proj_weight", "out_proj.weight") if layer.in_proj_weight is not None else (*SEPARATE, "out_proj.weight")


@register_rule(nn.MultiheadAttention, weights=weights, owns=("out_proj",), draws_random=lambda layer: layer.dropout > 0)
def attention(layer: nn.MultiheadAttention, call: LayerCall) -> dict[str, GradientFactors | list[GradientFactors]]:
    """Runs the attention again between its projections: their outputs' derivatives are the adjoints (paper, eq. 1)."""
    entered = [_time_first(layer, call.argument(i, name)) for i, name in enumerate(("query", "key", "value"))]
    adjoint = call.output[0] * 0 if call.adjoints[0] is None else call.adjoints[0]
    adjoint = _time_first(layer, adjoint.to(layer.out_proj.weight.dtype))
    projected = _projected(layer, entered)
    with torch.enable_grad(), call.replaying():
        attended, weighting = _attend(layer, call, projected)
    if call.random_state:
        replayed = functional.linear(attended, layer.out_proj.weight, layer.out_proj.bias)
        call.confirm(_time_first(layer, replayed))
    adjoints = _adjoints(projected, attended, adjoint @ layer.out_proj.weight, weighting, call.adjoints[1:])
    return {
        "out_proj.weight": GradientFactors(_rows(attended), _rows(adjoint)),
        **_of_inputs(layer, call, [_rows(tensor) for tensor in entered], [_rows(tensor) for tensor in adjoints]),
    }


def _time_first(layer: nn.MultiheadAttention, tensor: Tensor) -> Tensor:
    """A tensor (n, time, width) or (time, n, width), whichever the layer takes, as the latter; and back."""
    if tensor.dim() != 3:
        raise AutoSpecError("called without a batch dimension; a single sequence cannot be split into samples")
    return tensor.transpose(0, 1) if layer.batch_first else tensor


def _rows(time_first: Tensor) -> Tensor:
    return time_first.transpose(0, 1)


def _projections(layer: nn.MultiheadAttention) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
    """The weights and biases of query, key and value."""
    bias = (None,) * 3 if layer.in_proj_bias is None else layer.in_proj_bias.detach().chunk(3)
    if layer.in_proj_weight is not None:
        return layer.in_proj_weight.detach().chunk(3), bias
    return [layer.get_parameter(name).detach() for name in SEPARATE], bias


def _projected(layer: nn.MultiheadAttention, entered: Sequence[Tensor]) -> list[Tensor]:
    linear = functional.linear
    parts = zip(entered, *_projections(layer), strict=True)
    return [linear(tensor.to(weight.dtype), weight, bias).requires_grad_() for tensor, weight, bias in parts]


def _attend(layer: nn.MultiheadAttention, call: LayerCall, projected: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """What enters the last projection, (time, n, width), and the attention weights where the call asked for them.

    It is the layer's own function with identities for projections, so that masks and dropout come out the same.
    """
    query, key, value = projected
    identity = torch.eye(layer.embed_dim, dtype=query.dtype, device=query.device)
    unmultiplied = identity.as_subclass(_Identity)
    bias_k, bias_v = (None if bias is None else bias.detach() for bias in (layer.bias_k, layer.bias_v))
    attended, weighting = functional.multi_head_attention_forward(
        query, key, value, layer.embed_dim, layer.num_heads,
        in_proj_weight=None, in_proj_bias=None, use_separate_proj_weight=True,
        q_proj_weight=unmultiplied, k_proj_weight=unmultiplied, v_proj_weight=unmultiplied,
        out_proj_weight=identity, out_proj_bias=None, bias_k=bias_k, bias_v=bias_v,
        add_zero_attn=layer.add_zero_attn, dropout_p=layer.dropout, training=call.training,
        key_padding_mask=_added_mask(call.argument(3, "key_padding_mask"), query.dtype),
        need_weights=call.argument(4, "need_weights", True),
        attn_mask=_added_mask(call.argument(5, "attn_mask"), query.dtype),
        average_attn_weights=call.argument(6, "average_attn_weights", True),
        is_causal=call.argument(7, "is_causal", False),
    )  # fmt: skip
    return attended, weighting


class _Identity(Tensor):
    """An identity matrix, by which nothing is multiplied: products by it would take as long as the projections."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.linear:
            return args[0]
        return super().__torch_function__(function, types, args, kwargs or {})


def _added_mask(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask as what is added to the scores: two masks of unlike types would be warned about a second time."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -torch.inf)


def _adjoints(
    projected: Sequence[Tensor],
    attended: Tensor,
    adjoint: Tensor,
    weighting: Tensor | None,
    of_weighting: Sequence[Tensor | None],
) -> tuple[Tensor, ...]:
    """The adjoints of query, key and value as projected, from those of the layer's outputs."""
    outputs, seeds = [attended], [adjoint]
    if weighting is not None and of_weighting and of_weighting[0] is not None:
        outputs.append(weighting)
        seeds.append(of_weighting[0].to(weighting.dtype))
    return torch.autograd.grad(outputs, list(projected), seeds)


def _of_inputs(
    layer: nn.MultiheadAttention, call: LayerCall, entered: Sequence[Tensor], adjoints: Sequence[Tensor]
) -> dict[str, GradientFactors | list[GradientFactors]]:
    """The factors of the input projections; those of self-attention in one weight are a single linear layer's."""
    if layer.in_proj_weight is None:
        return {name: GradientFactors(*parts) for name, *parts in zip(SEPARATE, entered, adjoints, strict=True)}
    if all(_is_same(entered[0], other) for other in entered[1:]):
        return {"in_proj_weight": GradientFactors(entered[0], torch.cat(list(adjoints), dim=-1))}
    width = layer.embed_dim
    parts = enumerate(zip(entered, adjoints, strict=True))
    return {"in_proj_weight": [GradientFactors(*part, first_row=place * width) for place, part in parts]}


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are views of the same numbers."""
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()
