"""Networks: one module per architecture family, each for both tasks."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

from autospec.experiments.config.schema import Architecture, ExperimentConfig, Task
from autospec.experiments.models.shape import DataShape

_MODULES = {
    Architecture.mlp: "mlp",
    Architecture.rnn: "rnn",
    Architecture.lstm: "lstm",
    Architecture.bert: "bert",
    Architecture.cnn1d: "cnn",
    Architecture.cnn2d: "cnn",
    Architecture.cnn3d: "cnn",
}


def build(config: ExperimentConfig, inputs: tuple[int, ...], classes: int) -> nn.Module:
    """The untrained network of a configuration, its initialisation decided by ``seed`` alone.

    ``inputs`` is the shape of one sample. An autoencoder returns what has the shape of its input, a classifier
    logits (n, classes).
    """
    shape = DataShape(tuple(inputs), classes if config.task is Task.classification else None)
    family = import_module(f"{__name__}.{_MODULES[config.architecture]}")
    torch.manual_seed(config.seed)  # after the import, which may draw numbers of its own
    model: nn.Module = family.build(config, shape)
    return model
