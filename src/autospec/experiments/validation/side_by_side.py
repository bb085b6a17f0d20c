"""Perceptrons of many studies trained side by side, and the factors of every sample's gradient at some epochs.

Each network has data and an initialisation of its own and trains as if it were alone: stacked weights, batched
products, one Adam whose steps are element by element. ``recorded`` trains one at a time with the recorder; both give
the same within rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from autospec.experiments import models
from autospec.experiments.config.schema import ExperimentConfig, Task
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.retraining.networks import NONLINEAR
from autospec.spectra.factors import GradientFactors

LAYERS = ("hidden.0", "head")
"""The layers of a perceptron of one hidden layer."""


@dataclass(frozen=True)
class Snapshot:
    """What the networks of a block are at an epoch, before their step.

    Attributes:
        epoch: The epoch.
        sides: Of each layer (study, n, in) the activations and (study, n, out) the adjoints of the studies' samples;
            where a study has fewer samples than another, zeros.
        losses: (study, n) the samples' losses.
        counted: (study, n) 1 for a sample, 0 beyond a study's own.
    """

    epoch: int
    sides: Mapping[str, tuple[Tensor, Tensor]]
    losses: Tensor
    counted: Tensor

    def factors(self, study: int) -> dict[str, GradientFactors]:
        """Return the factors of one study's gradients, by layer."""
        own = slice(0, int(self.counted[study].sum()))
        return {layer: GradientFactors(*(side[study, own] for side in both)) for layer, both in self.sides.items()}


def train_side_by_side(
    configs: Sequence[ExperimentConfig], data: Sequence[Dataset], epochs: Collection[int]
) -> Iterator[Snapshot]:
    """Train the network of every study.

    Args:
        configs: Of each study; they differ in their seeds alone. Perceptrons of one hidden layer, full batches.
        data: Of each study the samples, all of which are trained on; their numbers may differ.
        epochs: The epochs of which a snapshot is wanted.

    Yields:
        The snapshots.
    """
    first, count = configs[0], [len(one.inputs) for one in data]
    inputs, target = (_padded([torch.from_numpy(getattr(one, name)) for one in data]) for name in ("inputs", "target"))
    counted = _padded([torch.ones(number) for number in count])
    share = counted / counted.sum(1, keepdim=True)
    weights = _initial_weights(configs, data)
    optimizer = torch.optim.Adam(weights.values(), lr=first.learning_rate)
    for epoch in range(first.epochs):
        hidden, output, state = _forward(weights, inputs, first)
        losses = _losses(output, inputs, target, first.task)
        # studies share no weight, so that the gradient of the sum is each study's own
        total = (losses * share).sum()
        if epoch in epochs:
            adjoints = torch.autograd.grad(total, [hidden, output], retain_graph=True)
            sides = dict(zip(LAYERS, zip((inputs, state.detach()), adjoints, strict=True), strict=True))
            yield Snapshot(epoch, sides, losses.detach() * counted, counted)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()


def _initial_weights(configs: Sequence[ExperimentConfig], data: Sequence[Dataset]) -> dict[str, Tensor]:
    """Every parameter by name, (study, ...), as ``models.build`` initialises each network."""
    networks = [
        dict(models.build(config, one.inputs.shape[1:], len(one.classes)).named_parameters())
        for config, one in zip(configs, data, strict=True)
    ]
    assert {name.rpartition(".")[0] for name in networks[0]} == set(LAYERS)
    return {name: torch.stack([own[name].detach() for own in networks]).requires_grad_() for name in networks[0]}


def _forward(weights: Mapping[str, Tensor], inputs: Tensor, config: ExperimentConfig) -> tuple[Tensor, Tensor, Tensor]:
    """(study, n, ...) of the hidden layer and of the output before any nonlinearity, and of the hidden state."""

    def linear(name: str, values: Tensor) -> Tensor:
        return values @ weights[f"{name}.weight"].mT + weights[f"{name}.bias"][:, None]

    hidden = linear("hidden.0", inputs)
    state = NONLINEAR[config.activation](hidden)
    return hidden, linear("head", state), state


def _losses(output: Tensor, inputs: Tensor, target: Tensor, task: Task) -> Tensor:
    """(study, n) as ``training.tasks`` has them."""
    if task is Task.autoencoding:
        return (output - inputs).square().mean(-1)
    return functional.cross_entropy(output.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)


def _padded(parts: Sequence[Tensor]) -> Tensor:
    """(study, n, ...): studies of fewer samples have zeros after them, which count nothing."""
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
