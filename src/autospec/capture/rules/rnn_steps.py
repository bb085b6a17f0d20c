"""The adjoints inside an Elman layer by its equations, step by step: less work on a CPU than its kernel run again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_relu_backward, _tanh_backward = torch.ops.aten.threshold_backward.grad_input, torch.ops.aten.tanh_backward.grad_input
"""Write an adjoint before an activation, from that after it and the activation's value."""


def rnn_goes_step_by_step(layer: nn.RNNBase, device: torch.device, packed: bool) -> bool:
    """Whether a layer is a single Elman one, called with sequences of one length, on a CPU."""
    return layer.mode.startswith("RNN_") and layer.num_layers == 1 and not packed and device.type == "cpu"


def rnn_rows(
    layer: nn.RNNBase,
    data: Tensor,
    initial: Sequence[Tensor],
    adjoints: Sequence[Tensor | None],
    direction: int,
    states: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The hidden state that each step began with and the adjoint of its pre-activation, (steps, n, width) each.

    ``data`` (steps, n, in); ``initial`` the state (directions, n, width) before the first step; ``adjoints`` those of
    the output (steps, n, directions · width) and of the final state, None where none arrived; ``states`` the output
    itself, or None where it is lost and the steps must be run again.
    """
    recurrence = layer.get_parameter("weight_hh" + suffix(0, direction)).detach()
    start = initial[0][direction]
    of_output = None if adjoints[0] is None else of_direction(layer, adjoints[0].to(data.dtype), direction)
    of_final = adjoints[1][direction].to(data.dtype) if adjoints[1] is not None else torch.zeros_like(start)
    is_relu = layer.mode == "RNN_RELU"
    if states is None:
        hidden = _run(entering(layer, data, direction), recurrence, start, is_relu)
    else:
        hidden = torch.cat((start[None], of_direction(layer, states, direction)))
    delta = _back(hidden[1:], recurrence, of_output, of_final, is_relu)
    began = hidden[:-1]
    return (began.flip(0), delta.flip(0)) if direction else (began, delta)


def suffix(depth: int, direction: int) -> str:
    """What the names of the weights of one layer of the stack, in one direction, end in."""
    return f"_l{depth}" + ("_reverse" if direction else "")


def of_direction(layer: nn.RNNBase, of_steps: Tensor, direction: int) -> Tensor:
    """One direction's part of what stands beside one another, (steps, n, width), first to last in its own order."""
    part = of_steps.chunk(2 if layer.bidirectional else 1, dim=-1)[direction]
    return part.flip(0) if direction else part


def entering(layer: nn.RNNBase, data: Tensor, direction: int) -> Tensor:
    """The input's part of the pre-activations, first to last in the direction's own order."""
    end = suffix(0, direction)
    bias = None
    if layer.bias:
        bias = layer.get_parameter("bias_ih" + end).detach() + layer.get_parameter("bias_hh" + end).detach()
    entered = functional.linear(data, layer.get_parameter("weight_ih" + end).detach(), bias)
    return entered.flip(0) if direction else entered


def _run(entered: Tensor, recurrence: Tensor, start: Tensor, is_relu: bool) -> Tensor:
    """(steps + 1, n, width): the hidden states, the first before any step."""
    hidden = torch.cat((start[None], entered))
    by_step = hidden.unbind()
    for before, after in itertools.pairwise(by_step):
        after.addmm_(before, recurrence.mT)
        _ = after.relu_() if is_relu else after.tanh_()
    return hidden


def _back(hidden: Tensor, recurrence: Tensor, of_output: Tensor | None, of_final: Tensor, is_relu: bool) -> Tensor:
    """(steps, n, width): the adjoints of the pre-activations, from that of the last step to that of the first."""
    delta = torch.empty_like(hidden)
    arrived = torch.zeros_like(of_final).expand_as(hidden) if of_output is None else of_output
    by_step = (hidden.unbind(), arrived.unbind(), delta.unbind())
    of_hidden = arrived[-1] + of_final
    for step in reversed(range(len(hidden))):
        value, before = by_step[0][step], by_step[2][step]
        if is_relu:
            _relu_backward(of_hidden, value, 0, grad_input=before)
        else:
            _tanh_backward(of_hidden, value, grad_input=before)
        if step:
            of_hidden = torch.addmm(by_step[1][step - 1], before, recurrence)
    return delta
