"""The weights at the record before, for statistics of what the optimizer did since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autospec.capture.layers import Layer
from autospec.capture.pieces import whole
from autospec.recording.epoch_sums import EpochSums
from autospec.spectra.registered import WEIGHT


class PreviousWeights:
    """A copy of every watched weight at the last record, or when recording began; empty where nobody asks for it.

    A weight that its module computes from others (weight norm) is none that an optimizer changes: it has none here.
    """

    def __init__(self, layers: Sequence[Layer], wanted: bool) -> None:
        self._layers = list(layers) if wanted else []
        self._epoch = -1
        self._weights = self._now()

    def _now(self) -> dict[str, Tensor]:
        with torch.no_grad():
            return {layer.name: _matrix(layer).clone() for layer in self._layers if not layer.computed}

    def give(self, sums: EpochSums) -> None:
        """Give the sums of the record that ends the weights now and at the record before."""
        for layer in self._layers:
            of_layer = sums.layers[layer.name]
            if layer.computed:
                of_layer.moments.unknown[WEIGHT] = "its module computes the weight from other parameters"
                continue
            of_layer.weight, of_layer.weight_before = _matrix(layer), self._weights.get(layer.name)

    def replace(self, epoch: int) -> None:
        """A record has been made: the next one is compared with the weights of now."""
        self._epoch, self._weights = epoch, self._now()

    def forget(self, epoch: int) -> None:
        """Forget them where they are of that epoch or a later one."""
        if self._epoch >= epoch:
            self._epoch, self._weights = -1, {}

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the weights, for a checkpoint."""
        return {"epoch": self._epoch, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them from a checkpoint; one of before they were kept has none."""
        self._epoch = int(state.get("epoch", -1))
        self._weights = {name: weight.clone() for name, weight in state.get("weights", {}).items()}


def _matrix(layer: Layer) -> Tensor:
    return whole(layer.parameter.detach()).flatten(1)
