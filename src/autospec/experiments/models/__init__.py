"""Networks: one module per architecture family, each for both tasks."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import Architecture, ExperimentConfig, Task
from autospec.experiments.config.targets import make
from autospec.experiments.models.shape import DataShape, activation_of

_MODULES = {
    Architecture.mlp: "mlp",
    Architecture.rnn: "recurrent",
    Architecture.lstm: "recurrent",
    Architecture.bert: "bert",
    Architecture.cnn1d: "cnn",
    Architecture.cnn2d: "cnn",
    Architecture.cnn3d: "cnn",
}


def build(config: ExperimentConfig, inputs: tuple[int, ...], classes: int) -> nn.Module:
    """Return the untrained network of a configuration, its initialisation decided by ``seed`` alone.

    Args:
        config: architecture, task, width, depth, activation, seed.
        inputs: the shape of one sample.
        classes: the number of classes, which an autoencoder ignores.

    Returns:
        A module from (n, *inputs) to (n, *inputs) for autoencoding, to logits (n, classes) for classification.
    """
    shape = DataShape(tuple(inputs), classes if config.task is Task.classification else None)
    if config.architecture is Architecture.custom:
        torch.manual_seed(config.seed)
        return _custom(config, shape)
    family = import_module(f"{__name__}.{_MODULES[config.architecture]}")
    torch.manual_seed(config.seed)  # after the import, which may draw numbers of its own
    model: nn.Module = family.build(config, shape)
    return model


def _custom(config: ExperimentConfig, shape: DataShape) -> nn.Module:
    """The network that ``network._target_`` makes."""
    made = make(
        "network",
        config.network,
        inputs=shape.inputs,
        classes=shape.classes,
        width=config.width,
        depth=config.depth,
        activation=activation_of(config),
    )
    if not isinstance(made, nn.Module):
        raise AutoSpecError(f"network._target_ returned {type(made).__name__}, not a torch.nn.Module")
    return made
