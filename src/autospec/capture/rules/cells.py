"""RNNCell, LSTMCell and GRUCell: one step of a recurrent layer, its gates' adjoints by the cell's own equations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from autospec.capture.rules.linear import rows_of
from autospec.capture.rules.registry import LayerCall, register_rule
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors

WEIGHTS = ("weight_ih", "weight_hh")


@register_rule(nn.RNNCell, weights=WEIGHTS)
@register_rule(nn.LSTMCell, weights=WEIGHTS)
@register_rule(nn.GRUCell, weights=WEIGHTS)
def cell(layer: nn.RNNCellBase, call: LayerCall) -> dict[str, GradientFactors]:
    """A row of ``A`` is a sample's input for ``W_ih``, its hidden state for ``W_hh``; ``Δ`` is of the pre-activations.

    The pre-activations' adjoints (paper, eq. 1) come from the cell's equations, run again between its products.
    """
    entered = call.argument(0, "input")
    if entered.dim() != 2:
        raise AutoSpecError("called without a batch dimension; a single row cannot be split into samples")
    weight_ih, weight_hh = (layer.get_parameter(name).detach() for name in WEIGHTS)
    states = _states(layer, call, entered.to(weight_hh.dtype))
    with torch.enable_grad():
        given = functional.linear(entered.to(weight_ih.dtype), weight_ih, _bias(layer, "bias_ih")).requires_grad_()
        kept = functional.linear(states[0], weight_hh, _bias(layer, "bias_hh")).requires_grad_()
        outputs = _step(layer, given, kept, states)
    arrived = [(out, seed) for out, seed in zip(outputs, call.adjoints, strict=True) if seed is not None]
    found = torch.autograd.grad(
        [out for out, _ in arrived], [given, kept], [seed.to(out.dtype) for out, seed in arrived]
    )
    return {
        name: GradientFactors(rows_of(rows), rows_of(adjoint))
        for name, rows, adjoint in zip(WEIGHTS, (entered, states[0]), found, strict=True)
    }


def _states(layer: nn.RNNCellBase, call: LayerCall, entered: Tensor) -> tuple[Tensor, ...]:
    """The hidden state that the call began with and, of an LSTM, the cell state: (n, width) each."""
    given = call.argument(1, "hx")
    if given is None:
        zeros = entered.new_zeros(len(entered), layer.hidden_size)
        return (zeros, zeros)
    return tuple(state.to(entered.dtype) for state in (given if isinstance(given, (tuple, list)) else (given,)))


def _bias(layer: nn.RNNCellBase, name: str) -> Tensor | None:
    return layer.get_parameter(name).detach() if layer.bias else None


def _step(layer: nn.RNNCellBase, given: Tensor, kept: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What the cell returns, from the parts of its input and of its hidden state in the pre-activations."""
    if isinstance(layer, nn.LSTMCell):
        entry, forget, new, show = (given + kept).chunk(4, dim=1)
        state = forget.sigmoid() * states[1] + entry.sigmoid() * new.tanh()
        # on a CPU the hidden state is computed from the cell state that is returned, whose adjoint holds both parts
        shown = state if given.is_cuda else state.detach()
        return show.sigmoid() * shown.tanh(), state
    if isinstance(layer, nn.GRUCell):
        (given_r, given_z, given_n), (kept_r, kept_z, kept_n) = given.chunk(3, dim=1), kept.chunk(3, dim=1)
        new, update = (given_n + (given_r + kept_r).sigmoid() * kept_n).tanh(), (given_z + kept_z).sigmoid()
        return ((1 - update) * new + update * states[0],)
    total = given + kept
    return (total.tanh() if layer.nonlinearity == "tanh" else total.relu(),)
