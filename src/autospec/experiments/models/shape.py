"""What a network is built for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from autospec.experiments.config.schema import Activation, ExperimentConfig
from autospec.experiments.config.targets import make


@dataclass(frozen=True)
class DataShape:
    """What a network is fed with and has to tell apart.

    Attributes:
        inputs: the shape of one sample: an image (1, height, width), a time series (time, channels), a table's row
            (features,) or a map (1, x, y, z).
        classes: how many there are; None for an autoencoder.
    """

    inputs: tuple[int, ...]
    classes: int | None

    @property
    def features(self) -> int:
        """The number of values in one sample."""
        return math.prod(self.inputs)

    @property
    def channels(self) -> int:
        """The number of values at one step of a time series."""
        return self.inputs[-1]

    @property
    def is_series(self) -> bool:
        """Whether a sample is a time series."""
        return len(self.inputs) == 2


ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    Activation.relu: nn.ReLU,
    Activation.tanh: nn.Tanh,
    Activation.sigmoid: nn.Sigmoid,
}


def activation_of(config: ExperimentConfig) -> Callable[[], nn.Module]:
    """Return what makes the nonlinearity of a hidden layer.

    Args:
        config: its activation, and for ``custom`` its nonlinearity.
    """
    if config.activation is Activation.custom:
        return lambda: make("nonlinearity", config.nonlinearity)
    return ACTIVATIONS[config.activation]
