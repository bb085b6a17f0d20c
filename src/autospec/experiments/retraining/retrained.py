"""The test of what a classifier learns: networks trained anew with permuted labels, and their groups compared.

Without a difference between groups the network with the observed labels is one of 1 + P exchangeable ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from autospec.errors import AutoSpecError
from autospec.experiments import datasets, models
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.retraining.design import RetrainingDesign, retraining_design
from autospec.experiments.retraining.networks import make_networks, number_at_once
from autospec.experiments.retraining.training import Compared, Labels, train_and_compare
from autospec.experiments.training.devices import device_name, make_deterministic
from autospec.recording.recorder import SpectralRecorder
from autospec.store.permutations import PermutationRatios
from autospec.store.permuted_pairs import FEWEST_PERMUTATIONS
from autospec.store.schema import layer_name

TRIAL_EPOCHS = 3


class Retraining:
    """The networks of one run, with the observed labels and with permuted ones.

    Attributes:
        config: The run's configuration.
        design: Whose labels are permuted in which network.
        block: How many networks are trained at once; their numbers do not depend on it but for rounding.
    """

    def __init__(self, config: ExperimentConfig, permutations: int, data: Dataset | None = None) -> None:
        """Permute the labels; nothing is trained yet.

        Args:
            config: The run's configuration.
            permutations: How often labels are permuted.
            data: The run's samples; None loads them.

        Raises:
            AutoSpecError: Permutations are so few that no p could be small, or the network is no classifier.
        """
        if permutations < FEWEST_PERMUTATIONS:
            raise AutoSpecError(
                f"retrain: permutations={permutations}: with fewer than {FEWEST_PERMUTATIONS} no p can reach 0.05"
            )
        data = data or datasets.load(config.dataset)
        self.config = config
        self.design: RetrainingDesign = retraining_design(config, data, permutations)
        self._device = device_name(config.device)
        self._inputs = torch.from_numpy(data.inputs[data.training]).to(self._device)
        self._model = models.build(config, data.inputs.shape[1:], len(data.classes)).to(self._device)
        self._random = torch.get_rng_state()  # a network that draws random numbers draws the run's
        self._layers = _recorded_layers(config, self._model, data)
        self.block = number_at_once(config, tuple(self._inputs.shape))

    @property
    def blocks(self) -> list[slice]:
        """The networks that are trained together; none where no pair can be tested."""
        count = len(self.design.target) if self.design.pairs else 0
        return [slice(start, min(start + self.block, count)) for start in range(0, count, self.block)]

    def train(self, block: slice) -> Compared:
        """Train some networks.

        Args:
            block: One of ``blocks``.

        Returns:
            As ``training.train_and_compare``.
        """
        with make_deterministic(self.config.threads):
            return self._train(block, self.config.epochs, frozenset(self.design.design.epochs))

    def expected_s(self) -> float:
        """Return about how long all networks take, one block after another, by a trial of a few epochs."""
        if not self.blocks:
            return 0.0
        first = self.blocks[0]
        with make_deterministic(self.config.threads):
            self._train(first, 1, frozenset({0}))  # warms up
            compared_s = _timed(lambda: self._train(first, 1, frozenset({0})))
            epoch_s = _timed(lambda: self._train(first, TRIAL_EPOCHS, frozenset({0}))) - compared_s
        epoch_s = max(epoch_s, 0.0) / (TRIAL_EPOCHS - 1)
        of_block = self.config.epochs * epoch_s + len(self.design.design.epochs) * max(compared_s - epoch_s, 0.0)
        return of_block * len(self.design.target) / len(range(*first.indices(len(self.design.target))))

    def _train(self, block: slice, epochs: int, compared: frozenset[int]) -> Compared:
        config = self.config
        target = torch.from_numpy(self.design.target[block]).to(self._device)
        labels = Labels(target, torch.from_numpy(self.design.sides(block)).to(self._device))
        torch.set_rng_state(self._random)
        networks = make_networks(config, self._model, self._inputs, len(target))
        return train_and_compare(networks, labels, replace(config, epochs=epochs), compared, self._layers)

    def join(self, parts: Sequence[Compared]) -> PermutationRatios:
        """Put what the blocks gave side by side, as partitions of their pairs."""
        design = self.design.design
        ratios = {
            layer: {name: np.concatenate([part[layer][name] for part, _ in parts], axis=2) for name in arrays}
            for layer, arrays in (parts[0][0].items() if parts else ())
        }
        return PermutationRatios(
            epochs=np.array(design.epochs, dtype=np.int64),
            pairs=tuple((pair.a, pair.b) for pair in design.pairs),
            subjects=np.array([[(p.members[0] == code).sum() for code in (1, 2)] for p in design.pairs]).reshape(-1, 2),
            strata=tuple(", ".join(pair.strata) for pair in design.pairs),
            refused=design.refused,
            permutation_design=design.digest(),
            ratios=ratios,
            loss=np.concatenate([loss for _, loss in parts], axis=2) if parts else None,
        )


def retrain(config: ExperimentConfig, permutations: int, data: Dataset | None = None) -> PermutationRatios:
    """Compute what groups differ in under every partition, each from a network of its own.

    Args:
        config: The run's configuration.
        permutations: How often labels are permuted.
        data: The run's samples; None loads them.

    Returns:
        The ratios of every pair that can be tested, the reasons of those that cannot.

    Raises:
        AutoSpecError: As ``Retraining``.
    """
    retraining = Retraining(config, permutations, data)
    return retraining.join([retraining.train(block) for block in retraining.blocks])


def _timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _recorded_layers(config: ExperimentConfig, model: torch.nn.Module, data: Dataset) -> dict[str, str]:
    """The parameter of each layer that a run would record, by the layer's name."""
    parameters = {layer_name(name): name for name, _ in model.named_parameters()}
    with SpectralRecorder(model, groups=data.groups, layers=config.introspection.layers) as recorder:
        return {layer: parameters[layer] for layer in recorder.layers}
