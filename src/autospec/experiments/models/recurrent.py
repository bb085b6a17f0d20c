"""Elman network and LSTM: recurrent layers read a time series, a linear head reads their states."""

from __future__ import annotations

from torch import Tensor, nn

from autospec.experiments.config.schema import Activation, Architecture, ExperimentConfig
from autospec.experiments.models.shape import DataShape, activation_of
from autospec.experiments.models.sigmoid_rnn import SigmoidRNN


class RecurrentNetwork(nn.Module):
    """Recurrent layers, an activation behind them, and a linear head.

    An autoencoder's head reads the state of every step, a classifier's that of the last one.

    Args:
        shape: of a sample, and the number of classes.
        recurrent: maps (n, time, channels) to a tuple whose first entry is its states (n, time, width).
        activation: between the states and the head.
        width: of the states.
    """

    def __init__(self, shape: DataShape, recurrent: nn.Module, activation: nn.Module, width: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.activation = activation
        self.head = nn.Linear(width, shape.classes or shape.channels)
        self._last_step_only = shape.classes is not None

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, time, channels) → (n, classes), or the shape of the input."""
        states = self.recurrent(inputs)[0]
        return self.head(self.activation(states[:, -1] if self._last_step_only else states))


def build(config: ExperimentConfig, shape: DataShape) -> RecurrentNetwork:
    """Return the untrained network of a configuration, of ``depth`` stacked recurrent layers.

    The activation is the nonlinearity of an Elman network's layers. An LSTM's gates have their own: there it stands
    between the layers and the head.

    Args:
        config: its architecture, width, depth and activation.
        shape: of a sample, and the number of classes.
    """
    if config.architecture is Architecture.lstm:
        layers: nn.Module = nn.LSTM(shape.channels, config.width, config.depth, batch_first=True)
        return RecurrentNetwork(shape, layers, activation_of(config)(), config.width)
    if config.activation is Activation.sigmoid:  # torch has no fused kernel for it
        layers = SigmoidRNN(shape.channels, config.width, config.depth)
    else:
        nonlinearity = config.activation.value
        layers = nn.RNN(shape.channels, config.width, config.depth, nonlinearity=nonlinearity, batch_first=True)
    return RecurrentNetwork(shape, layers, nn.Identity(), config.width)
