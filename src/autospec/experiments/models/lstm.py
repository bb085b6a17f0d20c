"""LSTM: ``depth`` stacked layers with their own gates; the activation stands between them and the head."""

from __future__ import annotations

from torch import nn

from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.models.recurrent import RecurrentNetwork
from autospec.experiments.models.shape import DataShape, activation_of


def build(config: ExperimentConfig, shape: DataShape) -> RecurrentNetwork:
    """Return the untrained LSTM of a configuration.

    Args:
        config: its width, depth and activation.
        shape: of a sample, and the number of classes.
    """
    layers = nn.LSTM(shape.channels, config.width, config.depth, batch_first=True)
    return RecurrentNetwork(shape, layers, activation_of(config)(), config.width)
