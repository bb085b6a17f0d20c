"""RNN, LSTM and GRU: the adjoints inside the fused kernels, from a second run beside the training graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from autospec.capture.rules.lstm_steps import goes_step_by_step, lstm_rows
from autospec.capture.rules.registry import LayerCall, register_rule
from autospec.capture.rules.rnn_steps import rnn_goes_step_by_step, rnn_rows, suffix
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors

UNREPLAYABLE = "dropout between its layers is drawn inside the GPU's kernel and cannot be replayed; set dropout=0"


def weights(layer: nn.RNNBase) -> list[str]:
    """The names of the layer's weights: input to hidden, hidden to hidden and, where it has one, the projection."""
    return [name for name in layer._flat_weights_names if name.startswith("weight_")]


def drops(layer: nn.RNNBase) -> bool:
    """Whether there is dropout between the layers of the stack."""
    return layer.dropout > 0 and layer.num_layers > 1


def refusal(layer: nn.RNNBase) -> str | None:
    """Why the random numbers of a layer cannot be drawn again."""
    on_cpu = layer.get_parameter("weight_hh_l0").device.type == "cpu"
    return UNREPLAYABLE if drops(layer) and not on_cpu else None


@register_rule(nn.RNN, weights=weights, draws_random=drops, refuse=refusal)
@register_rule(nn.LSTM, weights=weights, draws_random=drops, refuse=refusal)
@register_rule(nn.GRU, weights=weights, draws_random=drops, refuse=refusal)
def recurrent(layer: nn.RNNBase, call: LayerCall) -> dict[str, GradientFactors]:
    """A row is a step: its ``A`` is the input for ``W_ih``, the hidden state one step back for ``W_hh``.

    The adjoints (paper, eq. 1) of the gates' pre-activations come from the fused kernel itself: given those
    pre-activations for its input, through identity weights, their adjoint is the gradient of its input. Those of a
    single Elman layer or LSTM come from their equations, which is quicker on a CPU.
    """
    data, steps = _steps(layer, call)
    if call.random_state and data.device.type != "cpu":
        raise AutoSpecError(UNREPLAYABLE)
    initial = _initial(layer, call, data, len(steps.lengths))
    if goes_step_by_step(layer, data.device, steps.packed is not None):
        return _step_by_step(lstm_rows, layer, call, data, steps, initial)
    if rnn_goes_step_by_step(layer, data.device, steps.packed is not None):
        return _step_by_step(rnn_rows, layer, call, data, steps, initial)
    with torch.enable_grad(), call.replaying():
        runs = _run(layer, data, steps, initial, call.training)
    if call.random_state:
        call.confirm(_as_called(layer, steps, runs[-1].output))
    adjoints = _adjoints(layer, steps, runs, call)
    factors: dict[str, GradientFactors] = {}
    for run, adjoint in zip(runs, adjoints, strict=True):
        for direction in range(_directions(layer)):
            factors |= _of_direction(_Direction(layer, steps, run, adjoint, direction))
    return factors


def _step_by_step(
    rows_of: Callable[..., tuple[Tensor, Tensor]],
    layer: nn.RNNBase,
    call: LayerCall,
    data: Tensor,
    steps: _Steps,
    initial: Sequence[Tensor],
) -> dict[str, GradientFactors]:
    """The factors of a single layer by its equations, which ``rows_of`` follows."""
    arrived = [call.adjoints[0], *call.adjoints[-len(initial) :]]
    if arrived[0] is not None:
        arrived[0] = _as_called(layer, steps, arrived[0])
    # the states that the kernel itself came to, unless a later layer wrote over them or autocast rounded them
    output = call.output[0] if call.keeps_output and call.output[0].dtype == data.dtype else None
    states = None if output is None else _as_called(layer, steps, output)
    factors: dict[str, GradientFactors] = {}
    for direction in range(_directions(layer)):
        began, delta = (steps.rows(rows) for rows in rows_of(layer, data, initial, arrived, direction, states))
        end = suffix(0, direction)
        of_state = factors[f"weight_hh{end}"] = GradientFactors(began, delta)
        factors[f"weight_ih{end}"] = of_state.beside(steps.rows(data))
    return factors


@dataclass(frozen=True)
class _Steps:
    """Where the rows of a call lie: ``lengths`` (n,) in the batch's order, and how they are packed, if they are."""

    lengths: Tensor
    length: int
    packed: PackedSequence | None

    @property
    def present(self) -> Tensor:
        """(n, length, 1): which steps are no padding."""
        step = torch.arange(self.length, device=self.lengths.device)
        return (step < self.lengths[:, None])[..., None]

    def wrapped(self, data: Tensor) -> Tensor | PackedSequence:
        """Data as a recurrent layer takes it."""
        return data if self.packed is None else PackedSequence(data, *self.packed[1:])

    def rows(self, data: Tensor) -> Tensor:
        """(n, length, width), zero where there is padding."""
        if self.packed is None:
            return data.transpose(0, 1)
        return pad_packed_sequence(PackedSequence(data, *self.packed[1:]), batch_first=True)[0]

    def without_padding(self, rows: Tensor) -> Tensor:
        """Rows (n, length, width), made zero where there is padding."""
        return rows if self.packed is None else rows * self.present

    def ends(self, reverse: bool) -> Tensor:
        """(n,): the step at which the recurrence ends."""
        return torch.zeros_like(self.lengths) if reverse else self.lengths - 1

    def one_back(self, states: Tensor, start: Tensor, reverse: bool) -> Tensor:
        """(n, length, width): the state that each step began with, ``start`` (n, width) at the first."""
        started = start[:, None]
        if not reverse:
            return self.without_padding(torch.cat((started, states[:, :-1]), dim=1))
        step = torch.arange(self.length, device=states.device)[:, None]
        after = torch.cat((states[:, 1:], started), dim=1)
        return self.without_padding(torch.where(step == self.lengths[:, None, None] - 1, started, after))

    def one_on(self, states: Tensor, reverse: bool) -> Tensor:
        """(n, length, width): what stands at the step that comes after each in the recurrence, zero at the last."""
        none = torch.zeros_like(states[:, :1])
        return torch.cat((none, states[:, :-1]) if reverse else (states[:, 1:], none), dim=1)


@dataclass(frozen=True)
class _Run:
    """One layer of the stack, run again; time first or packed, both directions side by side."""

    depth: int
    entered: Tensor
    projected: Tensor
    output: Tensor
    start: tuple[Tensor, ...]
    final: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Adjoints:
    """The adjoints of one layer of the stack, laid out as in ``_Run``; of ``final``, of the hidden state alone."""

    projected: Tensor
    output: Tensor
    final: Tensor


def _steps(layer: nn.RNNBase, call: LayerCall) -> tuple[Tensor, _Steps]:
    """The input, time first or packed, and where its rows lie."""
    entered = call.argument(0, "input")
    precise = layer.get_parameter("weight_hh_l0").dtype
    if isinstance(entered, PackedSequence):
        _, lengths = pad_packed_sequence(entered, batch_first=True)
        return entered.data.to(precise), _Steps(lengths.to(entered.data.device), len(entered.batch_sizes), entered)
    if entered.dim() != 3:
        raise AutoSpecError("called without a batch dimension; a single sequence cannot be split into samples")
    data = entered.transpose(0, 1) if layer.batch_first else entered
    length, samples, _ = data.shape
    return data.to(precise), _Steps(torch.full((samples,), length, device=data.device), length, None)


def _as_called(layer: nn.RNNBase, steps: _Steps, data: Tensor) -> Tensor:
    """Data, time first or packed, as the layer itself lays out its output; and back."""
    return data.transpose(0, 1) if layer.batch_first and steps.packed is None else data


def _initial(layer: nn.RNNBase, call: LayerCall, data: Tensor, samples: int) -> tuple[Tensor, ...]:
    """The hidden state that the call began with and, of an LSTM, the cell state: (depths · directions, n, width)."""
    given = call.argument(1, "hx")
    if given is not None:
        return tuple(state.to(data.dtype) for state in (given if isinstance(given, tuple) else (given,)))
    widths = (_width(layer), layer.hidden_size) if layer.mode == "LSTM" else (_width(layer),)
    return tuple(data.new_zeros(layer.num_layers * _directions(layer), samples, width) for width in widths)


def _run(layer: nn.RNNBase, data: Tensor, steps: _Steps, initial: Sequence[Tensor], training: bool) -> list[_Run]:
    """The stack, layer by layer, with the dropout between its layers."""
    runs: list[_Run] = []
    directions = _directions(layer)
    for depth in range(layer.num_layers):
        if runs and training and drops(layer):
            data = functional.dropout(data, layer.dropout)
        projected = _projected(layer, depth, data)
        start = tuple(state[depth * directions : (depth + 1) * directions].contiguous() for state in initial)
        kernel = _kernel(layer, depth)
        output, final = kernel(steps.wrapped(projected), start if layer.mode == "LSTM" else start[0])
        output = output.data if isinstance(output, PackedSequence) else output
        final = final if isinstance(final, tuple) else (final,)
        runs.append(_Run(depth, data, projected, output, start, final))
        data = output
    return runs


def _projected(layer: nn.RNNBase, depth: int, data: Tensor) -> Tensor:
    """The input's part in the pre-activation of every gate, of both directions side by side."""
    parts = [_parameter(layer, f"weight_ih{suffix(depth, d)}") for d in range(_directions(layer))]
    biases = [_parameter(layer, f"bias_ih{suffix(depth, d)}") for d in range(_directions(layer)) if layer.bias]
    projected = functional.linear(data, torch.cat(parts), torch.cat(biases) if biases else None)
    return projected if projected.requires_grad else projected.requires_grad_()


def _kernel(layer: nn.RNNBase, depth: int) -> nn.RNNBase:
    """One layer of the stack, which takes for its input what the input adds to the gates' pre-activations."""
    recurrence = _parameter(layer, "weight_hh_l0")
    directions, gates = _directions(layer), len(recurrence)
    # without values at first, since drawing them would move the random state
    kernel = _untrained(layer, directions * gates, recurrence.dtype).to_empty(device=recurrence.device)
    identity = torch.eye(directions * gates, dtype=recurrence.dtype, device=recurrence.device).chunk(directions)
    values = {name: _parameter(layer, name.replace("_l0", f"_l{depth}")) for name, _ in kernel.named_parameters()}
    for direction in range(directions):
        values[f"weight_ih{suffix(0, direction)}"] = identity[direction]
        if layer.bias:
            values[f"bias_ih{suffix(0, direction)}"] = recurrence.new_zeros(gates)  # added to the input already
    kernel.load_state_dict(values)
    return kernel.requires_grad_(False)


def _untrained(layer: nn.RNNBase, width: int, dtype: torch.dtype) -> nn.RNNBase:
    """A single layer of the same kind for inputs of some width, on the device that holds no values."""
    options = {"bias": layer.bias, "bidirectional": layer.bidirectional, "device": "meta", "dtype": dtype}
    if layer.mode == "LSTM":
        return nn.LSTM(width, layer.hidden_size, proj_size=layer.proj_size, **options)
    if layer.mode == "GRU":
        return nn.GRU(width, layer.hidden_size, **options)
    return nn.RNN(width, layer.hidden_size, nonlinearity=layer.mode.removeprefix("RNN_").lower(), **options)


def _adjoints(layer: nn.RNNBase, steps: _Steps, runs: Sequence[_Run], call: LayerCall) -> list[_Adjoints]:
    """The adjoints inside the stack, from those that arrived at its output and its final states."""
    with torch.enable_grad():
        finals = [torch.cat(states) for states in zip(*(run.final for run in runs), strict=True)]
    arrived = [call.adjoints[0], *call.adjoints[-len(finals) :]]
    if arrived[0] is not None:
        arrived[0] = _as_called(layer, steps, arrived[0])
    pairs = [(ours, seed) for ours, seed in zip((runs[-1].output, *finals), arrived, strict=True) if seed is not None]
    sought = [tensor for run in runs for tensor in (run.projected, run.output, run.final[0])]
    found = torch.autograd.grad(
        [ours for ours, _ in pairs], sought, [seed.to(ours.dtype) for ours, seed in pairs], materialize_grads=True
    )
    return [_Adjoints(*found[place : place + 3]) for place in range(0, len(found), 3)]


class _Direction:
    """One layer of the stack in one direction, its rows apart: (n, length, width) each."""

    def __init__(self, layer: nn.RNNBase, steps: _Steps, run: _Run, adjoint: _Adjoints, direction: int) -> None:
        def part(data: Tensor) -> Tensor:
            return steps.rows(data.detach().chunk(_directions(layer), dim=-1)[direction])

        self.layer, self.steps, self.reverse = layer, steps, direction == 1
        self.suffix = suffix(run.depth, direction)
        self.entered, self.projected = steps.rows(run.entered), part(run.projected)
        self.delta = part(adjoint.projected).contiguous()  # it is a factor of two weights
        self.start = [state[direction] for state in run.start]
        self.earlier = steps.one_back(part(run.output), self.start[0], self.reverse)
        self.of_output, self.of_final = part(adjoint.output), adjoint.final[direction]

    def parameter(self, stem: str) -> Tensor:
        return _parameter(self.layer, stem + self.suffix)

    def recurrent_part(self) -> Tensor:
        """The hidden state's part in the pre-activations."""
        bias = self.parameter("bias_hh") if self.layer.bias else None
        return functional.linear(self.earlier, self.parameter("weight_hh"), bias)


def _of_direction(at: _Direction) -> dict[str, GradientFactors]:
    """The factors of one layer's weights in one direction."""
    counts = None if at.steps.packed is None else at.steps.lengths
    recurrent_delta = _behind_reset_gate(at) if at.layer.mode == "GRU" else at.delta
    factors = {
        f"weight_ih{at.suffix}": GradientFactors(at.entered, at.delta, row_counts=counts),
        f"weight_hh{at.suffix}": GradientFactors(at.earlier, recurrent_delta, row_counts=counts),
    }
    if at.layer.proj_size:
        factors[f"weight_hr{at.suffix}"] = GradientFactors(_cells_shown(at), _of_projection(at), row_counts=counts)
    return factors


def _behind_reset_gate(at: _Direction) -> Tensor:
    """The adjoint of what a GRU's hidden state adds: the reset gate ``r`` stands before the new gate's part of it."""
    width = at.layer.hidden_size
    reset = torch.sigmoid(at.projected[..., :width] + at.recurrent_part()[..., :width])
    return torch.cat((at.delta[..., : 2 * width], at.delta[..., 2 * width :] * reset), dim=-1)


def _cells_shown(at: _Direction) -> Tensor:
    """What an LSTM's projection takes in at each step: ``o ∘ tanh(c)``, zero where there is padding."""
    entering, forgetting, new, showing = (at.projected + at.recurrent_part()).chunk(4, dim=-1)
    kept, added = torch.sigmoid(forgetting), torch.sigmoid(entering) * torch.tanh(new)
    cell, present = at.start[1], at.steps.present
    cells: list[Tensor] = [cell] * at.steps.length
    for step in reversed(range(at.steps.length)) if at.reverse else range(at.steps.length):
        # a sequence that is read backwards begins at its own end
        cell = torch.where(present[:, step], kept[:, step] * cell + added[:, step], cell)
        cells[step] = cell
    return torch.sigmoid(showing) * torch.tanh(torch.stack(cells, dim=1)) * present


def _of_projection(at: _Direction) -> Tensor:
    """The adjoint of an LSTM's projected state: from the layer's output, its end and the step that comes after."""
    delta = at.of_output + at.steps.one_on(at.delta, at.reverse) @ at.parameter("weight_hh")
    ends = at.steps.ends(at.reverse)
    delta[torch.arange(len(delta), device=delta.device), ends] += at.of_final
    return at.steps.without_padding(delta)


def _directions(layer: nn.RNNBase) -> int:
    return 2 if layer.bidirectional else 1


def _width(layer: nn.RNNBase) -> int:
    return layer.proj_size or layer.hidden_size


def _parameter(layer: nn.RNNBase, name: str) -> Tensor:
    return layer.get_parameter(name).detach()
