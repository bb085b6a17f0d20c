"""The adjoints inside a layer of LSTM by its equations, step by step: less work on a CPU than its kernel run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autospec.capture.rules.rnn_steps import entering, of_direction, suffix

NUMBERS_AT_ONCE = 2**18
"""So many numbers of gates are computed at a time: 1 MiB, which a processor's cache holds."""


def goes_step_by_step(layer: nn.RNNBase, device: torch.device, packed: bool) -> bool:
    """Whether a layer is a single LSTM without projections, called with sequences of one length, on a CPU."""
    single = layer.mode == "LSTM" and layer.num_layers == 1 and not layer.proj_size
    return single and not packed and device.type == "cpu"


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
    layer: nn.RNNBase,
    data: Tensor,
    initial: Sequence[Tensor],
    adjoints: Sequence[Tensor | None],
    direction: int,
    states: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The hidden state that each step began with and the adjoint of its gates, (steps, n, width) each.

    ``data`` (steps, n, in); ``initial`` the states (directions, n, width) before the first step; ``adjoints`` those
    of the output (steps, n, directions · width) and of the final states, None where none arrived; ``states`` the
    output itself, or None where it is lost and the steps must be run again.
    """
    recurrence = layer.get_parameter("weight_hh" + suffix(0, direction)).detach()
    start, cell = (state[direction] for state in initial)
    gates = entering(layer, data, direction)
    of_output = data.new_zeros(()).expand(len(data), *start.shape)
    if adjoints[0] is not None:
        of_output = of_direction(layer, adjoints[0].to(data.dtype), direction)
    of_states = [
        torch.zeros_like(start) if arrived is None else arrived[direction].to(data.dtype) for arrived in adjoints[1:]
    ]
    if states is None:
        ran = _run(gates, recurrence, start, cell)
    else:
        ran = _known(gates, recurrence, torch.cat((start[None], of_direction(layer, states, direction))), cell)
    delta = _back(ran, recurrence, of_output, *of_states)
    began = ran.hidden[:-1]
    return (began.flip(0), delta.flip(0)) if direction else (began, delta)


def _known(gates: Tensor, recurrence: Tensor, hidden: Tensor, cell: Tensor) -> _Forward:
    """The steps whose hidden states are known: the gates of several steps at once, and the cells one by one."""
    steps, samples, width = len(gates), *cell.shape
    cells, shown = gates.new_empty(steps + 1, samples, width), gates.new_empty(steps, samples, width)
    cells[0] = cell
    for block in _blocks(gates):
        some, after = gates[block], slice(block.start + 1, block.stop + 1)
        some.view(-1, 4 * width).addmm_(hidden[block].reshape(-1, width), recurrence.mT)
        _let_through(some)
        entry, forget, new, _ = some.chunk(4, dim=-1)
        torch.mul(entry, new, out=cells[after])
        before = cells[block.start]
        for open_, here in zip(forget.unbind(), cells[after].unbind(), strict=True):
            before = here.addcmul_(open_, before)
        torch.tanh(cells[after], out=shown[block])
    return _Forward(gates, cells, shown, hidden)


def _blocks(gates: Tensor) -> list[slice]:
    """Stretches of steps (steps, n, width) that a processor's cache holds."""
    length = max(1, NUMBERS_AT_ONCE // max(gates[:1].numel(), 1))
    return [slice(start, min(start + length, len(gates))) for start in range(0, len(gates), length)]


def _run(gates: Tensor, recurrence: Tensor, start: Tensor, cell: Tensor) -> _Forward:
    """Run the steps; ``gates``, the input's part of the pre-activations, becomes what the gates let through."""
    steps, (samples, width) = len(gates), start.shape
    cells, hidden = gates.new_empty(2, steps + 1, samples, width)
    cells[0], hidden[0] = cell, start
    shown = gates.new_empty(steps, samples, width)
    by_step = (gates.unbind(), cells.unbind(), hidden.unbind(), shown.unbind())
    for step, gate in enumerate(by_step[0]):
        gate.addmm_(by_step[2][step], recurrence.mT)
        _let_through(gate)
        entry, forget, new, show = gate.chunk(4, dim=1)
        torch.mul(forget, by_step[1][step], out=by_step[1][step + 1]).addcmul_(entry, new)
        torch.tanh(by_step[1][step + 1], out=by_step[3][step])
        torch.mul(show, by_step[3][step], out=by_step[2][step + 1])
    return _Forward(gates, cells, shown, hidden)


def _let_through(gates: Tensor) -> None:
    """Pre-activations (..., 4 · width) become what the gates let through, in place."""
    width = gates.shape[-1] // 4
    gates[..., : 2 * width].sigmoid_()
    new = gates[..., 2 * width : 3 * width]
    new.copy_(new.contiguous().tanh_())  # in place, among the others, it takes three times as long
    gates[..., 3 * width :].sigmoid_()


def _back(ran: _Forward, recurrence: Tensor, of_output: Tensor, of_hidden: Tensor, of_cell: Tensor) -> Tensor:
    """(steps, n, 4 · width): the adjoints of the gates' pre-activations, which take the place of the gates.

    The derivatives of several steps are taken at once; what is left to each step is to multiply by them: by those that
    the cell's adjoint passes through, and by the last gate's, which the hidden state's does.
    """
    arrived = of_output.unbind()
    of_hidden = of_output[-1] + of_hidden
    for block in reversed(_blocks(ran.gates)):
        entry, forget, new, show = ran.gates[block].chunk(4, dim=-1)
        shown, before = ran.shown[block], ran.cells[block]
        through = torch.addcmul(show, show * shown, shown, value=-1)
        open_ = forget.contiguous()
        of_new = torch.addcmul(entry, entry * new, new, value=-1)
        entry.addcmul_(entry, entry, value=-1).mul_(new)
        forget.addcmul_(forget, forget, value=-1).mul_(before)
        show.addcmul_(show, show, value=-1).mul_(shown)
        new.copy_(of_new)
        by_step = (ran.gates[block].unbind(), open_.unbind(), through.unbind())
        for place in reversed(range(len(open_))):
            delta, forgets, passes = (of_steps[place] for of_steps in by_step)
            gates = delta.unflatten(-1, (4, -1))
            of_cell = torch.addcmul(of_cell, of_hidden, passes)
            gates[:, :3].mul_(of_cell[:, None])
            gates[:, 3].mul_(of_hidden)
            of_cell.mul_(forgets)
            if block.start + place:
                of_hidden = torch.addmm(arrived[block.start + place - 1], delta, recurrence)
    return ran.gates
