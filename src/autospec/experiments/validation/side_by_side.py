"""Perceptrons of many studies trained side by side, and the factors of every sample's gradient at some epochs.

Each network has data and an initialisation of its own and trains as if it were alone: stacked weights, batched
products, one Adam whose steps are element by element. ``recorded`` trains one at a time with the recorder; both give
the same within rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
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
    """What one study's network is at an epoch, before its step.

    Attributes:
        study: The number of the study.
        epoch: The epoch.
        factors: Of each layer the activations and adjoints of the study's samples.
        losses: (n,) the samples' losses.
    """

    study: int
    epoch: int
    factors: Mapping[str, GradientFactors]
    losses: Tensor


def train_side_by_side(
    configs: Sequence[ExperimentConfig], data: Sequence[Dataset], epochs: Collection[int]
) -> Iterator[Snapshot]:
    """Train the network of every study.

    Args:
        configs: Of each study; they differ in their seeds alone. Perceptrons of one hidden layer, full batches.
        data: Of each study the samples, all of which are trained on; their numbers may differ.
        epochs: The epochs of which a snapshot is wanted.

    Yields:
        The snapshots, epoch by epoch, study by study.
    """
    first, count = configs[0], [len(one.inputs) for one in data]
    inputs, target = (_padded([torch.from_numpy(getattr(one, name)) for one in data]) for name in ("inputs", "target"))
    share = _padded([torch.full((number,), 1 / number) for number in count])
    weights = _initial_weights(configs, data)
    optimizer = torch.optim.Adam(weights.values(), lr=first.learning_rate)
    for epoch in range(first.epochs):
        hidden, output, state = _forward(weights, inputs, first)
        losses = _losses(output, inputs, target, first.task)
        total = (losses * share).sum()
        if epoch in epochs:
            adjoints = torch.autograd.grad(total, [hidden, output], retain_graph=True)
            sides = dict(zip(LAYERS, zip((inputs, state.detach()), adjoints, strict=True), strict=True))
            for study, number in enumerate(count):
                factors = {
                    name: GradientFactors(*(side[study, :number] for side in pair)) for name, pair in sides.items()
                }
                yield Snapshot(study, epoch, factors, losses.detach()[study, :number])
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


def group_spectra(factors: GradientFactors, member: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the raw gradients' singular values of some groups, and their noise floors by the formula.

    Args:
        factors: Of a layer, one row a sample.
        member: Of each group (n,) who is in it.

    Returns:
        (group, K) and (group,).
    """
    activation, adjoint = (side[0, :, 0].double() for side in (factors.activation, factors.adjoint))
    inside = [torch.from_numpy(own) for own in member]
    gradients = torch.stack([adjoint[own].mT @ activation[own] for own in inside])
    values = torch.linalg.svdvals(gradients)
    norms = [adjoint[own].norm() * activation[own].norm() for own in inside]
    floor = factors.eps * min(gradients.shape[1:]) ** 0.5 * torch.stack(norms)
    return values.numpy(), floor.numpy()
