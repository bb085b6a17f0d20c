"""The adjoints inside a layer of LSTM by its equations, step by step: less work on a CPU than its kernel run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


def goes_step_by_step(layer: nn.RNNBase, device: torch.device, packed: bool) -> bool:
    """Whether a layer is a single LSTM without projections, called with sequences of one length, on a CPU."""
    single = layer.mode == "LSTM" and layer.num_layers == 1 and not layer.proj_size
    return single and not packed and device.type == "cpu"


_sigmoid_backward, _tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
"""An adjoint before an activation from that after it and the activation's value."""


@dataclass(frozen=True)
class _Forward:
    """What the steps of one direction came to, first to last in its own order: (steps, n, ...) each.

    ``gates`` are entry, forget, new and show; ``cells`` and ``hidden`` begin with the state before the first step.
    """

    gates: Tensor
    cells: Tensor
    shown: Tensor
    hidden: Tensor


def lstm_rows(
    layer: nn.RNNBase, data: Tensor, initial: Sequence[Tensor], adjoints: Sequence[Tensor | None], direction: int
) -> tuple[Tensor, Tensor]:
    """The hidden state that each step began with and the adjoint of its gates, (steps, n, width) each.

    ``data`` (steps, n, in); ``initial`` the states (directions, n, width) before the first step; ``adjoints`` those
    of the output (steps, n, directions · width) and of the final states, None where none arrived.
    """
    suffix = "_l0" + ("_reverse" if direction else "")
    recurrence = layer.get_parameter("weight_hh" + suffix).detach()
    start, cell = (state[direction] for state in initial)
    gates = functional.linear(data, layer.get_parameter("weight_ih" + suffix).detach(), _bias(layer, suffix))
    of_output = data.new_zeros(()).expand(len(data), *start.shape)
    if adjoints[0] is not None:
        of_output = adjoints[0].to(data.dtype).chunk(2 if layer.bidirectional else 1, dim=-1)[direction]
    of_states = [
        torch.zeros_like(start) if arrived is None else arrived[direction].to(data.dtype) for arrived in adjoints[1:]
    ]
    ran = _run(gates.flip(0) if direction else gates, recurrence, start, cell)
    delta = _back(ran, recurrence, of_output.flip(0) if direction else of_output, *of_states)
    began = ran.hidden[:-1]
    return (began.flip(0), delta.flip(0)) if direction else (began, delta)


def _bias(layer: nn.RNNBase, suffix: str) -> Tensor | None:
    if not layer.bias:
        return None
    return layer.get_parameter("bias_ih" + suffix).detach() + layer.get_parameter("bias_hh" + suffix).detach()


def _run(gates: Tensor, recurrence: Tensor, start: Tensor, cell: Tensor) -> _Forward:
    """Run the steps; ``gates``, the input's part of the pre-activations, becomes what the gates let through."""
    steps, (samples, width) = len(gates), start.shape
    cells, hidden = gates.new_empty(2, steps + 1, samples, width)
    cells[0], hidden[0] = cell, start
    shown = gates.new_empty(steps, samples, width)
    by_step = (gates.unbind(), cells.unbind(), hidden.unbind(), shown.unbind())
    for step, gate in enumerate(by_step[0]):
        gate.addmm_(by_step[2][step], recurrence.mT)
        entry, forget, new, show = gate.chunk(4, dim=1)
        gate[:, : 2 * width].sigmoid_()
        new.tanh_()
        show.sigmoid_()
        torch.mul(forget, by_step[1][step], out=by_step[1][step + 1]).addcmul_(entry, new)
        torch.tanh(by_step[1][step + 1], out=by_step[3][step])
        torch.mul(show, by_step[3][step], out=by_step[2][step + 1])
    return _Forward(gates, cells, shown, hidden)


def _back(ran: _Forward, recurrence: Tensor, of_output: Tensor, of_hidden: Tensor, of_cell: Tensor) -> Tensor:
    """(steps, n, 4 · width): the adjoints of the gates' pre-activations, which take the place of the gates."""
    by_step = (ran.gates.unbind(), ran.cells.unbind(), ran.shown.unbind(), of_output.unbind())
    for step in reversed(range(len(ran.gates))):
        gate, cell, shown, arrived = (of_steps[step] for of_steps in by_step)
        entry, forget, new, show = gate.chunk(4, dim=1)
        of_hidden = arrived + of_hidden
        of_cell = of_cell + _tanh_backward(of_hidden * show, shown)
        before = of_cell * forget
        of_gates = (
            _sigmoid_backward(of_cell * new, entry),
            _sigmoid_backward(of_cell * cell, forget),
            _tanh_backward(of_cell * entry, new),
            _sigmoid_backward(of_hidden * shown, show),
        )
        torch.cat(of_gates, dim=1, out=gate)
        of_hidden, of_cell = gate @ recurrence, before
    return ran.gates
