"""Training of networks with labels of their own, and what two groups' gradients differ in at some epochs.

A network trains as ``training.loop`` trains it: the same initialisation, order of samples and optimizer. The
gradients that are compared are those of each group at the weights before each step, in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.parts import optimizer_of, schedule_of
from autospec.experiments.retraining.networks import Networks
from autospec.spectra.rank import effective_rank
from autospec.spectra.singular import of_matrix

FLOOR = 1e-10
"""A singular value below so much of the largest may be rounding of float64, enlarged by terms that cancel."""

Arrays = dict[str, npt.NDArray[np.float32]]
Compared = tuple[dict[str, Arrays], npt.NDArray[np.float32]]
"""Ratios of gradients by layer and name, and those of mean losses."""


@dataclass(frozen=True)
class Labels:
    """What networks learn, and which samples are compared.

    Attributes:
        target: (networks, n) the class of each sample.
        sides: (networks, pair, n) 1 for a sample of the pair's first group, 2 for one of the second, 0 for others.
    """

    target: Tensor
    sides: Tensor


def train_and_compare(
    networks: Networks, labels: Labels, config: ExperimentConfig, compared: Collection[int], layers: Mapping[str, str]
) -> Compared:
    """Train networks and take the ratios of their groups' gradients.

    Args:
        networks: The networks, untrained.
        labels: Of each network.
        config: The run's, which says how they train.
        compared: The epochs at which groups are compared.
        layers: The name of each layer's parameter, by the layer's name.

    Returns:
        By layer and name (``store.schema.PERMUTATION_RATIOS``) the (epoch, pair, network, ...) log2 ratios, and those
        of the mean losses, (epoch, pair, network).

    Raises:
        AutoSpecError: A loss is not a number.
    """
    optimizer = optimizer_of(config, networks.module)
    schedule = schedule_of(config, optimizer)
    order = torch.Generator().manual_seed(config.seed)
    of_epochs: list[Compared] = []
    for epoch in range(config.epochs):
        sums = GroupSums(labels, layers) if epoch in compared else None
        for places in _batches(labels.target.shape[1], config.batch_size, order):
            if sums is not None:
                with torch.random.fork_rng():  # training draws what it would
                    sums.add(networks.in_double(), places)
            target = labels.target if places is None else labels.target[:, places.to(labels.target.device)]
            losses = networks.losses(places, target).mean(1)
            _check_finite(losses, epoch)
            losses.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        if schedule is not None:
            schedule.step()
        if sums is not None:
            of_epochs.append(sums.ratios())
    return _over_epochs(of_epochs)


def _batches(samples: int, batch_size: int | None, order: torch.Generator) -> Iterator[Tensor | None]:
    """The whole set, None, or shuffled batches, as the training loop has them."""
    if batch_size is None or batch_size >= samples:
        yield None
    else:
        yield from torch.randperm(samples, generator=order).split(batch_size)


def _check_finite(losses: Tensor, epoch: int) -> None:
    if not bool(losses.isfinite().all()):
        raise AutoSpecError(
            f"retrain: the loss of a network is not a number at epoch {epoch}; try a smaller learning_rate"
        )


class GroupSums:
    """The gradients of both groups of every pair, summed over the batches of an epoch; training is left as it is."""

    def __init__(self, labels: Labels, layers: Mapping[str, str]) -> None:
        self._labels, self._layers = labels, layers
        counts = (2, *labels.sides.shape[1::-1])  # side, pair, network
        self._gradients: dict[str, Tensor] = {}
        self._weight, self._loss, self._samples = (torch.zeros(counts, dtype=torch.float64) for _ in range(3))

    def add(self, networks: Networks, places: Tensor | None) -> None:
        """Add the batch at some places, None for all samples, at the networks' weights."""
        samples = self._labels.target.shape[1]
        places = torch.arange(samples) if places is None else places
        for pair in range(self._labels.sides.shape[1]):
            for side in (0, 1):
                self._add_group(networks, places, pair, side)

    def _add_group(self, networks: Networks, places: Tensor, pair: int, side: int) -> None:
        member = (self._labels.sides[:, pair, places] == side + 1).to("cpu")
        counts = member.sum(1)
        widest = int(counts.max())
        if not widest:
            return
        # a network with fewer members than another repeats its first sample with weight 0
        chosen = member.int().argsort(dim=1, descending=True, stable=True)[:, :widest]
        counted = (torch.arange(widest) < counts[:, None]).double()
        own = places[chosen].to(self._labels.target.device)
        losses = networks.losses(own, self._labels.target.gather(1, own)) * counted.to(own.device)
        used = [networks.weights[parameter] for parameter in self._layers.values()]
        gradients = torch.autograd.grad(losses.sum() / len(places), used)
        for layer, gradient in zip(self._layers, gradients, strict=True):
            matrices = gradient.reshape(
                networks.number, len(gradient) if networks.number == 1 else gradient.shape[1], -1
            )
            self._add_gradient(layer, pair, side, matrices.cpu())
        self._loss[side, pair] += losses.detach().sum(1).cpu()
        self._samples[side, pair] += counts
        self._weight[side, pair] += counts / len(places)

    def _add_gradient(self, layer: str, pair: int, side: int, matrices: Tensor) -> None:
        if layer not in self._gradients:
            pairs, networks = self._weight.shape[1:]
            self._gradients[layer] = torch.zeros((2, pairs, networks, *matrices.shape[1:]), dtype=torch.float64)
        self._gradients[layer][side, pair] += matrices

    def ratios(self) -> Compared:
        """The (pair, network, ...) log2 ratios, first group over second, by layer and name, and of the mean losses."""
        means = self._loss / self._samples
        loss = (_log2(means[0]) - _log2(means[1])).numpy().astype(np.float32)
        scale = _log2(self._weight[1]) - _log2(self._weight[0])
        return {layer: gradient_ratios(sides, scale) for layer, sides in self._gradients.items()}, loss


def gradient_ratios(sides: Tensor, scale: Tensor) -> Arrays:
    """Compare two groups' gradients.

    Args:
        sides: (2, ..., out, in) float64, the groups' parts of the gradient.
        scale: (...) log2 of the second group's loss weight over the first's.

    Returns:
        By name (``store.schema.PERMUTATION_RATIOS``) the (...) or (..., index) log2 ratios of the mean gradients.
    """
    a, b = spectra = of_matrix(sides, torch.float64)
    floor_a, floor_b = (FLOOR * one[..., 0] for one in spectra)
    above = (a > floor_a[..., None]) & (b > floor_b[..., None])
    norm_a, norm_b = spectra.square().sum(-1).sqrt()
    rank_a, rank_b = (
        effective_rank(one.flatten(0, -2), floor.flatten()).view(floor.shape)
        for one, floor in ((a, floor_a), (b, floor_b))
    )
    ratios = {
        "log_ratio": (_log2(a) - _log2(b) + scale[..., None]).where(above, torch.nan),
        "log_norm": (_log2(norm_a) - _log2(norm_b) + scale).where(above[..., 0], torch.nan),
        "log_effective_rank": _log2(rank_a) - _log2(rank_b),
        "cancellation": sides.sum(0).flatten(-2).norm(dim=-1) / (norm_a + norm_b),
    }
    return {name: values.numpy().astype(np.float32) for name, values in ratios.items()}


def _log2(values: Tensor) -> Tensor:
    return values.where(values > 0, torch.nan).log2()


def _over_epochs(of_epochs: Sequence[Compared]) -> Compared:
    first = of_epochs[0][0]
    ratios = {
        layer: {name: np.stack([of_epoch[layer][name] for of_epoch, _ in of_epochs]) for name in arrays}
        for layer, arrays in first.items()
    }
    return ratios, np.stack([loss for _, loss in of_epochs])
