"""Classifiers of one kind that are trained with different labels: side by side where that is quicker, or one alone.

Side by side, every weight has a leading axis of networks, a layer is one batched product, and no number of one network
depends on another. It pays for networks whose layers are small beside what it costs to call them: perceptrons, Elman
cells, 1-D convolutions. LSTM, 2-D and 3-D convolutions and BERT have kernels of their own that are quicker alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from autospec.experiments.config.schema import Activation, Architecture, ExperimentConfig
from autospec.experiments.models.cnn import KERNEL, PADDING, STRIDE
from autospec.experiments.parts import task_of
from autospec.experiments.training.tasks import Task

Nonlinear = Callable[[Tensor], Tensor]

NONLINEAR: dict[Activation, Nonlinear] = {
    Activation.relu: torch.relu,
    Activation.tanh: torch.tanh,
    Activation.sigmoid: torch.sigmoid,
}
SIDE_BY_SIDE = frozenset({Architecture.mlp, Architecture.rnn, Architecture.cnn1d})
MOST_SIDE_BY_SIDE = 128
STATE_NUMBERS = 1 << 22
"""So many numbers of one layer's states are held for all networks side by side: 16 MiB."""


class Networks(Protocol):
    """Networks of one kind, each with weights of its own.

    Attributes:
        number: How many there are.
    """

    number: int

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Every parameter by name, (number, ...); what trains."""

    @property
    def module(self) -> nn.Module:
        """What an optimizer trains: a module with every weight."""

    def losses(self, places: Tensor | None, target: Tensor) -> Tensor:
        """Compute (number, n) losses of all samples, of those at places (n,), or at each network's (number, n).

        ``target`` (number, n) is what they are to learn.
        """

    def in_double(self) -> Networks:
        """Return the networks as they are now, in float64."""


def is_side_by_side(config: ExperimentConfig) -> bool:
    """Return whether a run's networks are trained side by side: where every part of it is one of ours.

    Args:
        config: The run's configuration.
    """
    ours = not config.network and not config.loss and config.activation is not Activation.custom
    elementwise = config.optimizer.get("_target_") == "torch.optim.Adam"
    return config.architecture in SIDE_BY_SIDE and ours and elementwise


def make_networks(config: ExperimentConfig, model: nn.Module, inputs: Tensor, number: int) -> Networks:
    """Return copies of a network.

    Args:
        config: The run's configuration.
        model: An untrained classifier.
        inputs: (n, ...) the samples.
        number: How many copies; one where they are not side by side.
    """
    if not is_side_by_side(config):
        return Alone(model, inputs, task_of(config))
    weights = {
        name: value.detach()[None].repeat(number, *[1] * value.dim()) for name, value in model.named_parameters()
    }
    forward = _FORWARDS[config.architecture]
    return Stacked(weights, _PREPARED[config.architecture](inputs), forward, NONLINEAR[config.activation])


def number_at_once(config: ExperimentConfig, inputs: tuple[int, ...]) -> int:
    """Return how many networks are trained side by side.

    Args:
        config: The run's configuration.
        inputs: The shape (n, ...) of all samples.
    """
    if not is_side_by_side(config):
        return 1
    places = inputs[1] if len(inputs) == 3 else 1  # of time
    numbers = inputs[0] * max(places * config.width, math.prod(inputs[1:]) // 4)
    return max(1, min(MOST_SIDE_BY_SIDE, STATE_NUMBERS // numbers))


class Alone:
    """One network, computed as it always is."""

    number = 1

    def __init__(self, model: nn.Module, inputs: Tensor, task: Task) -> None:
        self._model, self._inputs, self._task = copy.deepcopy(model), inputs, task
        self._model.train()

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Every parameter by name, without the axis of networks."""
        return dict(self._model.named_parameters())

    @property
    def module(self) -> nn.Module:
        """As ``Networks.module``."""
        return self._model

    def losses(self, places: Tensor | None, target: Tensor) -> Tensor:
        """As ``Networks.losses``."""
        inputs = self._inputs if places is None else self._inputs[places.flatten()]
        return self._task.losses(self._model(inputs), inputs, target[0])[None]

    def in_double(self) -> Networks:
        """As ``Networks.in_double``."""
        return Alone(copy.deepcopy(self._model).double(), self._inputs.double(), self._task)


class Stacked:
    """Networks side by side."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        samples: Tensor,
        forward: Callable[[Mapping[str, Tensor], Tensor, Nonlinear], Tensor],
        nonlinear: Nonlinear,
    ) -> None:
        self._weights = {name: nn.Parameter(value.detach().clone()) for name, value in weights.items()}
        self.number = len(next(iter(weights.values())))
        self._samples, self._forward, self._nonlinear = samples, forward, nonlinear

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Every parameter by name."""
        return self._weights

    @property
    def module(self) -> nn.Module:
        """As ``Networks.module``."""
        return nn.ParameterList(self._weights.values())

    def losses(self, places: Tensor | None, target: Tensor) -> Tensor:
        """As ``Networks.losses``."""
        samples = self._samples if places is None else self._samples[places]
        logits = self._forward(self._weights, samples, self._nonlinear)
        return functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)

    def in_double(self) -> Networks:
        """As ``Networks.in_double``."""
        weights = {name: value.double() for name, value in self._weights.items()}
        return Stacked(weights, self._samples.double(), self._forward, self._nonlinear)


def _linear(weights: Mapping[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    """(n, in), or (networks, n, in), to (networks, n, out)."""
    return inputs @ weights[f"{name}.weight"].flatten(2).mT + weights[f"{name}.bias"][:, None]


def _depth(weights: Mapping[str, Tensor], name: str) -> int:
    return sum(key.startswith(name) for key in weights)


def _perceptrons(weights: Mapping[str, Tensor], state: Tensor, nonlinear: Nonlinear) -> Tensor:
    for layer in range(_depth(weights, "hidden.") // 2):
        state = nonlinear(_linear(weights, f"hidden.{layer}", state))
    return _linear(weights, "head", state)


def _elman_networks(weights: Mapping[str, Tensor], series: Tensor, nonlinear: Nonlinear) -> Tensor:
    """Of series (..., n, time, channels): layer by layer, step by step; the head reads the last state."""
    steps = series.transpose(-3, -2)
    for layer in range(_depth(weights, "recurrent.weight_ih_l")):
        ih, hh, bias_ih, bias_hh = (weights[f"recurrent.{name}_l{layer}"] for name in _RECURRENT)
        driven = steps.flatten(-3, -2) @ ih.mT + (bias_ih + bias_hh)[:, None]
        # unbound at once: a step taken by its index would have a gradient as large as all steps
        first, *later = driven.unflatten(1, steps.shape[-3:-1]).unbind(1)
        states = [nonlinear(first)]
        for drive in later:
            states.append(nonlinear(torch.baddbmm(drive, states[-1], hh.mT)))
        steps = torch.stack(states, 1)
    return _linear(weights, "head", steps[:, -1])


_RECURRENT = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _convolutions(weights: Mapping[str, Tensor], patches: Tensor, nonlinear: Nonlinear) -> Tensor:
    """Of patches (..., n, places, channels · kernel); the places of a sample are rows of one product."""
    layers = _depth(weights, "encoder.") // 2
    for layer in range(layers):
        rows = _linear(weights, f"encoder.{layer}", patches.flatten(-3, -2))
        state = nonlinear(rows.unflatten(1, patches.shape[-3:-1]))
        patches = _patches(state) if layer < layers - 1 else state
    return _linear(weights, "head", patches.mean(2))


def _patches(state: Tensor) -> Tensor:
    """(..., length, channels) to (..., ⌈length/2⌉, channels · kernel): what each place of a convolution reads."""
    return functional.pad(state, (0, 0, PADDING, PADDING)).unfold(-2, KERNEL, STRIDE).flatten(-2)


_FORWARDS = {Architecture.mlp: _perceptrons, Architecture.rnn: _elman_networks, Architecture.cnn1d: _convolutions}
_PREPARED: dict[Architecture, Callable[[Tensor], Tensor]] = {
    Architecture.mlp: lambda inputs: inputs.flatten(1),
    Architecture.rnn: lambda inputs: inputs,
    Architecture.cnn1d: _patches,
}
"""The samples as the networks take them."""
