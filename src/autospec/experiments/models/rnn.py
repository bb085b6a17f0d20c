"""Elman network: the activation is the nonlinearity of its ``depth`` stacked recurrent layers."""

from __future__ import annotations

from torch import nn

from autospec.experiments.config.schema import Activation, ExperimentConfig
from autospec.experiments.models.recurrent import RecurrentNetwork
from autospec.experiments.models.shape import DataShape
from autospec.experiments.models.sigmoid_rnn import SigmoidRNN


def build(config: ExperimentConfig, shape: DataShape) -> RecurrentNetwork:
    """Return the untrained Elman network of a configuration.

    Args:
        config: its width, depth and activation.
        shape: of a sample, and the number of classes.
    """
    layers = _layers(shape.channels, config.width, config.depth, config.activation)
    return RecurrentNetwork(shape, layers, nn.Identity(), config.width)


def _layers(channels: int, width: int, depth: int, activation: Activation) -> nn.Module:
    """The recurrent layers; torch has no fused kernel for a sigmoid."""
    if activation is Activation.sigmoid:
        return SigmoidRNN(channels, width, depth)
    return nn.RNN(channels, width, depth, nonlinearity=activation.value, batch_first=True)
