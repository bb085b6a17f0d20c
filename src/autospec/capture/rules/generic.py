"""Any function of a weight: the part of its gradient that comes from some samples, by its own backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from autospec.capture.rules.function_factors import CallFactors
from autospec.capture.rules.registry import LayerCall
from autospec.errors import AutoSpecError

_LINEAR_IN_PLACE = ("add_", "sub_", "__iadd__", "__isub__")
"""What a function in place may be called: its gradient does not depend on what was overwritten."""


def generic_factors(
    function: Any, place: tuple[Any, ...], call: LayerCall, weight: Tensor, met: list[Tensor]
) -> CallFactors:
    """The factors of a weight in a call of a function that no rule describes.

    Args:
        function: what was called.
        place: where the weight stands: a position or name, and a position in it where that is a list.
        call: the call and the adjoint of its one output.
        weight: the value of the weight.
        met: the other tensors of the call.

    Raises:
        AutoSpecError: where several outputs got an adjoint, or the function overwrote what its gradient depends on.
    """
    name = getattr(function, "__name__", str(function))
    arrived = [place for place, adjoint in enumerate(call.adjoints) if adjoint is not None]
    if len(arrived) != 1:
        raise AutoSpecError(f"its weight is used by {name}, which returned several tensors that the loss depends on")
    if writes_in_place(function) and name not in _LINEAR_IN_PLACE:
        raise AutoSpecError(f"its weight is used by {name}, which overwrites its input; use the form that does not")
    adjoint = call.adjoints[arrived[0]]
    assert adjoint is not None
    inputs, keywords = tree_map(_copied, (call.inputs, dict(call.keywords)))
    copy = weight.clone().requires_grad_()
    with torch.enable_grad(), call.replaying():
        output = _with(function, inputs, keywords, place, copy)
    outputs = output if isinstance(output, (tuple, list)) else (output,)
    chosen = outputs[arrived[0]]
    if chosen.shape != adjoint.shape:
        raise AutoSpecError(f"its weight is used by {name}, whose output came out in another shape")
    return CallFactors(adjoint, lambda seed: _backward(chosen, copy, seed), copy.shape, met)


def writes_in_place(function: Any) -> bool:
    """Whether a function changes its first argument, by its name."""
    name = getattr(function, "__name__", "")
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def _with(function: Any, inputs: Any, keywords: Any, place: tuple[Any, ...], weight: Tensor) -> Any:
    """What a function returns with a weight put at a place of its arguments."""
    arguments: dict[Any, Any] = {**dict(enumerate(inputs)), **keywords}
    if len(place) == 1:
        arguments[place[0]] = weight
    else:
        parts = list(arguments[place[0]])
        parts[place[1]] = weight
        arguments[place[0]] = type(arguments[place[0]])(parts)
    return function(
        *(arguments[position] for position in range(len(inputs))), **{key: arguments[key] for key in keywords}
    )


def _backward(output: Tensor, weight: Tensor, seed: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(output, weight, seed.to(output.dtype), retain_graph=True)
    return gradient


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
