"""Elman network: the activation is the nonlinearity of its ``depth`` stacked recurrent layers."""

from __future__ import annotations

from torch import nn

from autospec.experiments.config.schema import Activation, ExperimentConfig
from autospec.experiments.models.recurrent import RecurrentNetwork
from autospec.experiments.models.shape import DataShape
from autospec.experiments.models.sigmoid_rnn import SigmoidRNN


def build(config: ExperimentConfig, shape: DataShape) -> RecurrentNetwork:
    """The Elman network of a configuration."""
    cells = _cells(shape.channels, config.width, config.depth, config.activation)
    return RecurrentNetwork(shape, cells, nn.Identity(), config.width)


def _cells(channels: int, width: int, depth: int, activation: Activation) -> nn.Module:
    if activation is Activation.sigmoid:
        return SigmoidRNN(channels, width, depth)
    return nn.RNN(channels, width, depth, nonlinearity=activation.value, batch_first=True)
