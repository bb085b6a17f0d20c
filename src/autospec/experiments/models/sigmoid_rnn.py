"""Elman layers with a sigmoid, for which torch has no fused kernel, computed by its kernel for tanh."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autospec.capture.rules.registry import LayerCall, register_rule
from autospec.spectra.factors import GradientFactors


class SigmoidRNN(nn.Module):
    """``h_t = σ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)`` with ``h_0 = 0``, in ``depth`` stacked layers.

    Its parameters are those of this equation, named and initialised as ``nn.RNN``'s are.

    Args:
        channels: of the input.
        width: of the states.
        depth: the number of layers.

    >>> SigmoidRNN(channels=3, width=5, depth=2)(torch.zeros(4, 7, 3))[0].shape
    torch.Size([4, 7, 5])
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for layer in range(depth):
            columns = width if layer else channels
            for name, shape in zip(_names(layer), _shapes(columns, width), strict=True):
                bound = width**-0.5
                self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    def weights_of(self, layer: int) -> tuple[Tensor, ...]:
        """``W_ih`` (width, in), ``W_hh`` (width, width), ``b_ih`` and ``b_hh`` (width,) of one layer."""
        return tuple(getattr(self, name) for name in _names(layer))

    def forward(self, inputs: Tensor) -> tuple[Tensor]:
        """(n, time, channels) → the top layer's states (n, time, width), in a tuple as ``nn.RNN`` gives them."""
        states = inputs
        for layer in range(self.depth):
            states = sigmoid_states(states, *self.weights_of(layer))
        return (states,)


def sigmoid_states(inputs: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
    """Compute the states of one layer from its inputs.

    With ``σ(z) = (tanh(z/2) + 1)/2``, ``g = 2h - 1 = tanh(z/2)`` obeys a tanh recurrence,
    ``g_t = tanh(½W_ih x_t + ½b_ih + ¼W_hh g_{t-1} + ½b_hh + ¼W_hh 1)``, which begins at ``g_0 = -1``.

    Args:
        inputs: (n, time, in).
        weight_ih: (width, in).
        weight_hh: (width, width).
        bias_ih: (width,).
        bias_hh: (width,).

    Returns:
        The states ``h``, (n, time, width).
    """
    offset = bias_hh / 2 + weight_hh.sum(1) / 4
    rescaled = _contiguous([weight_ih / 2, weight_hh / 4, bias_ih / 2, offset])
    start = inputs.new_full((1, len(inputs), len(weight_hh)), -1)
    # in training mode always: without it cuDNN keeps nothing for a backward pass
    states, _ = torch.rnn_tanh(inputs, start, rescaled, True, 1, 0.0, True, False, True)
    return (states + 1) / 2


@register_rule(SigmoidRNN, weights=lambda rnn: [name for k in range(rnn.depth) for name in _names(k)[:2]])
def sigmoid_rnn(rnn: SigmoidRNN, call: LayerCall) -> dict[str, GradientFactors]:
    """The factors of both weights of every layer, from the top, since a layer's adjoints begin with its states'.

    Args:
        rnn: the module.
        call: its input (n, time, channels) and the adjoint of its output (n, time, width).

    Returns:
        By the weight's name: activations (n, time, in) and adjoints (n, time, width).
    """
    inputs = [call.activation]
    for layer in range(rnn.depth):
        inputs.append(sigmoid_states(inputs[-1], *rnn.weights_of(layer)))
    factors, adjoint = {}, call.adjoint
    for layer in reversed(range(rnn.depth)):
        weights = [weight.detach() for weight in rnn.weights_of(layer)]
        delta = _preactivation_adjoint(inputs[layer], weights, adjoint)
        name_ih, name_hh, *_ = _names(layer)
        factors[name_ih] = GradientFactors(inputs[layer], delta)
        factors[name_hh] = GradientFactors(_one_step_back(inputs[layer + 1]), delta)
        adjoint = delta @ weights[0]
    return factors


def _preactivation_adjoint(inputs: Tensor, weights: list[Tensor], adjoint: Tensor) -> Tensor:
    """``Δ = ∂loss/∂z`` (n, time, width) of one layer, from the adjoint of its states."""
    # zeros that enter z through an identity beside W_ih have Δ for their gradient
    weight_ih, *others = weights
    identity = torch.eye(len(weight_ih), dtype=weight_ih.dtype, device=weight_ih.device)
    with torch.enable_grad():
        zeros = torch.zeros_like(adjoint).requires_grad_()
        widened = torch.cat([inputs, zeros], dim=2)
        states = sigmoid_states(widened, torch.cat([weight_ih, identity], dim=1), *others)
        (delta,) = torch.autograd.grad(states, zeros, adjoint)
    return delta


def _one_step_back(states: Tensor) -> Tensor:
    """The state that each step began with: zero at the first, then that of the step before."""
    return torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)


def _contiguous(weights: list[Tensor]) -> list[Tensor]:
    """The same weights as views of one buffer, the layout that cuDNN takes without a copy."""
    buffer = torch.cat([weight.flatten() for weight in weights])
    parts = buffer.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def _names(layer: int) -> tuple[str, str, str, str]:
    return f"weight_ih_l{layer}", f"weight_hh_l{layer}", f"bias_ih_l{layer}", f"bias_hh_l{layer}"


def _shapes(columns: int, width: int) -> tuple[tuple[int, ...], ...]:
    return (width, columns), (width, width), (width,), (width,)
