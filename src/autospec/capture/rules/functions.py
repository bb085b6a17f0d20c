"""Functions that multiply by a weight, whoever calls them: the factors of the weight for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from autospec.capture.rules.convolution import Geometry, convolution_factors, transposed_factors
from autospec.capture.rules.embedding import bag_factors, embedding_factors
from autospec.capture.rules.function_factors import BilinearFactors, StackedFactors
from autospec.capture.rules.linear import rows_of
from autospec.capture.rules.registry import LayerCall
from autospec.spectra.factors import GradientFactors

FunctionRule = Callable[[LayerCall, Tensor], GradientFactors | None]
"""``(call, weight)`` → the factors of the weight as it was used, or None where the call is of another kind."""

_RULES: dict[tuple[Any, int, str], FunctionRule] = {}
_NAMES: dict[Any, dict[int, str]] = {}


def function_rule(function: Any, argument: int | str) -> FunctionRule | None:
    """The rule for a weight that a function gets as an argument, by its position or name.

    Args:
        function: a function of torch, as a ``TorchFunctionMode`` meets it.
        argument: where in the call the weight stands.

    Returns:
        The rule, or None where there is none, and the function's own backward pass must do.
    """
    names = _NAMES.get(function, {})
    name = names.get(argument) if isinstance(argument, int) else argument
    return next((rule for (of, _, known), rule in _RULES.items() if of is function and known == name), None)


def _of(argument: int, name: str, *functions: Any) -> Callable[[FunctionRule], FunctionRule]:
    """Register the rule below for the weight at a position of some functions' arguments."""

    def register(rule: FunctionRule) -> FunctionRule:
        for function in functions:
            _RULES[function, argument, name] = rule
            _NAMES.setdefault(function, {})[argument] = name
        return rule

    return register


@_of(1, "weight", functional.linear)
def linear(call: LayerCall, weight: Tensor) -> GradientFactors | None:
    """``y = x Wᵀ``: every leading position is a row."""
    if weight.dim() != 2:
        return None
    return GradientFactors(rows_of(call.argument(0, "input")), rows_of(call.adjoint))


@_of(1, "other", torch.matmul, Tensor.matmul, Tensor.__matmul__)
@_of(1, "mat2", torch.mm, Tensor.mm, torch.bmm, Tensor.bmm)
def times_weight(call: LayerCall, weight: Tensor) -> GradientFactors | None:
    """``y = x W``, for one matrix or a stack of them."""
    return _times(call.activation, call.adjoint, weight)


@_of(2, "mat2", torch.addmm, Tensor.addmm)
@_of(2, "batch2", torch.baddbmm, Tensor.baddbmm)
def offset_and_times_weight(call: LayerCall, weight: Tensor) -> GradientFactors | None:
    """``y = b + x W``, for one matrix or a stack of them."""
    if call.keywords.get("alpha", 1) != 1:
        return None
    return _times(call.argument(1, "mat1" if weight.dim() == 2 else "batch1"), call.adjoint, weight)


@_of(0, "input", torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm)
def weight_times(call: LayerCall, weight: Tensor) -> GradientFactors | None:
    """``y = W x``: every column is a row of ``A``."""
    other = call.inputs[1] if len(call.inputs) > 1 else next(iter(call.keywords.values()))
    if other.dim() < 2:
        return None
    if weight.dim() == 2:
        sides = (side.mT if side.dim() > 2 else side.T[:, None] for side in (other, call.adjoint))
        return GradientFactors(*(rows_of(side) for side in sides))
    stacked = _by_member(other.mT, call.adjoint.mT, weight)
    return None if stacked is None else StackedFactors(*stacked, out_first=True)


@_of(1, "operands", torch.einsum)
@_of(2, "operands", torch.einsum)
def contracted(call: LayerCall, weight: Tensor) -> GradientFactors | None:
    """``einsum`` of one input with a weight: sums over its first index and keeps the others, or the other way round."""
    equation, *operands = call.inputs
    operands = list(operands[0]) if isinstance(operands[0], (tuple, list)) else operands
    if "->" not in equation or "." in equation or len(operands) != 2:
        return None
    entering, leaving = equation.replace(" ", "").split("->")
    names = entering.split(",")
    place = next(place for place, operand in enumerate(operands) if operand.data_ptr() == weight.data_ptr())
    of_weight, of_input = names[place], names[1 - place]
    summed = "".join(name for name in of_weight if name not in leaving)
    kept = "".join(name for name in of_weight if name in leaving)
    rows = "".join(name for name in leaving if name not in kept)
    sides = {(of_weight[0], of_weight[1:]), (of_weight[1:], of_weight[0])}
    is_product = (summed, kept) in sides and len(set(of_weight)) == len(of_weight) > 1 and rows
    if not is_product or sorted(of_input) != sorted(rows + summed) or len(set(of_input)) != len(of_input):
        return None
    activation = operands[1 - place].permute([of_input.index(name) for name in rows + summed])
    adjoint = call.adjoint.permute([leaving.index(name) for name in rows + kept])
    return GradientFactors(
        rows_of(activation.flatten(len(rows))), rows_of(adjoint.flatten(len(rows))), transposed=of_weight[0] == summed
    )


@_of(1, "weight", functional.conv1d, functional.conv2d, functional.conv3d)
def convolution(call: LayerCall, weight: Tensor) -> GradientFactors | None:
    """A row of ``A`` is the padded input under one window, a row of ``Δ`` the adjoint of what the window gave."""
    names = ("stride", "padding", "dilation", "groups")
    options = {name: call.argument(place, name) for place, name in enumerate(names, start=3)}
    return convolution_factors(Geometry.of_call(weight.shape[2:], **options), call.argument(0, "input"), call.adjoint)


@_of(1, "weight", functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
def transposed_convolution(call: LayerCall, weight: Tensor) -> GradientFactors | None:
    """A row of ``A`` is one place of the input, a row of ``Δ`` the adjoint of its window."""
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    options = {name: call.argument(place, name) for place, name in enumerate(names, start=3)}
    del options["output_padding"]
    return transposed_factors(Geometry.of_call(weight.shape[2:], **options), call.argument(0, "input"), call.adjoint)


@_of(1, "weight", functional.embedding)
def embedding(call: LayerCall, weight: Tensor) -> GradientFactors | None:
    """A look-up: the one-hot rows of ``A`` are kept as indices."""
    return embedding_factors(
        call.argument(0, "input"),
        call.adjoint,
        len(weight),
        padding_index=call.argument(2, "padding_idx"),
        by_frequency=bool(call.argument(5, "scale_grad_by_freq", False)),
    )


@_of(1, "weight", functional.embedding_bag)
def embedding_bag(call: LayerCall, weight: Tensor) -> GradientFactors | None:
    """Sums or means of look-ups: every index of a bag is a row."""
    names = ("offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse", "per_sample_weights",
             "include_last_offset", "padding_idx")  # fmt: skip
    options: Mapping[str, Any] = {name: call.argument(place, name) for place, name in enumerate(names, start=2)}
    return bag_factors(call.argument(0, "input"), call.adjoint, len(weight), options)


@_of(2, "weight", functional.bilinear, torch.bilinear)
def bilinear(call: LayerCall, weight: Tensor) -> GradientFactors | None:
    """``y_o = x₁ᵀ W_o x₂``: a row of ``A`` is the outer product of the two inputs."""
    inputs = call.argument(0, "input1"), call.argument(1, "input2")
    return BilinearFactors((rows_of(inputs[0]), rows_of(inputs[1])), rows_of(call.adjoint))


def _times(activation: Tensor, adjoint: Tensor, weight: Tensor) -> GradientFactors | None:
    if weight.dim() == 2 and activation.dim() > 1:
        return GradientFactors(rows_of(activation), rows_of(adjoint), transposed=True)
    stacked = _by_member(activation, adjoint, weight)
    return None if stacked is None else StackedFactors(*stacked)


def _by_member(activation: Tensor, adjoint: Tensor, weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """(stack, n, positions, width) each, of a product with a stack of matrices (stack, ., .)."""
    if weight.dim() != 3 or activation.dim() not in (3, 4) or adjoint.shape[:-1] != activation.shape[:-1]:
        return None
    if activation.dim() == 3:
        return activation[:, :, None], adjoint[:, :, None]
    return activation.transpose(0, 1), adjoint.transpose(0, 1)
