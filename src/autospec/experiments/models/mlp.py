"""Multi-layer perceptron: input → width → output, with ``depth`` hidden layers of ``width`` units."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.models.shape import DataShape, activation_of


class MLP(nn.Module):
    """Hidden layers and a linear head that reconstructs the input or gives one logit per class."""

    def __init__(self, shape: DataShape, width: int, depth: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        widths = [shape.features] + [width] * depth
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation()
        self.head = nn.Linear(width, shape.classes or shape.features)
        self._output_shape = (shape.classes,) if shape.classes else shape.inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, ...) → (n, classes), or the shape of the input."""
        state = inputs.flatten(1)
        for layer in self.hidden:
            state = self.activation(layer(state))
        return self.head(state).unflatten(1, self._output_shape)


def build(config: ExperimentConfig, shape: DataShape) -> MLP:
    """Return the untrained perceptron of a configuration.

    Args:
        config: its width, depth and activation.
        shape: of a sample, and the number of classes.
    """
    return MLP(shape, config.width, config.depth, activation_of(config))
