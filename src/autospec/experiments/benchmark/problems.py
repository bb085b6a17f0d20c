"""What is trained in the benchmark: the seven architectures of the paper, autoencoding, with four groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import Activation, Architecture, ExperimentConfig, Task
from autospec.experiments.models import build

GROUPS = 4
WIDTH = 32

_IMAGES, _SERIES, _COMPONENTS, _MAPS = (2000, 1, 28, 28), (400, 64, 1), (150, 150, 53), (150, 1, 24, 29, 24)

SHAPES: dict[str, tuple[int, ...]] = {
    "mlp": _IMAGES,
    "rnn": _SERIES,
    "lstm": _COMPONENTS,
    "bert": _COMPONENTS,
    "cnn1d": _COMPONENTS,
    "cnn2d": _IMAGES,
    "cnn3d": _MAPS,
}
"""The inputs of each architecture, samples first: those of the data that the paper's figures train it on."""

_DEPTH = {"cnn1d": 2, "cnn2d": 2, "cnn3d": 2, "bert": 2}


@dataclass(frozen=True)
class Problem:
    """A network, the inputs that it reconstructs, (n, ...), and the group of each sample, (n,)."""

    model: nn.Module
    inputs: Tensor
    group: Tensor

    @property
    def weights(self) -> list[nn.Parameter]:
        """The trained weights that have a spectrum."""
        return [weight for weight in self.model.parameters() if weight.requires_grad and weight.dim() > 1]


def problem(name: str, samples: int | None = None, width: int = WIDTH, groups: int = GROUPS) -> Problem:
    """One architecture with random inputs, on the CPU; AutoSpecError for a name that is none."""
    if name not in SHAPES:
        raise AutoSpecError(f"model={name!r}: allowed are {', '.join(SHAPES)}")
    n, *shape = SHAPES[name]
    n = n if samples is None else samples
    config = ExperimentConfig(
        architecture=Architecture(name), task=Task.autoencoding, width=width, activation=Activation.relu, seed=0
    )
    config.depth = _DEPTH.get(name, 1)
    model = build(config, tuple(shape), groups)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand((n, *shape), generator=generator)
    return Problem(model, inputs, torch.randint(groups, (n,), generator=generator))
