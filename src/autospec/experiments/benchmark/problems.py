"""What is trained in the benchmark: the paper's seven architectures, autoencoding, and two blocks of common size."""

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

BERT_BASE, RESNET_50 = "bert-base", "resnet-50"

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

NAMES = (*SHAPES, BERT_BASE, RESNET_50)
"""Everything that can be trained, in the order of the table."""

_DEPTH = {"cnn1d": 2, "cnn2d": 2, "cnn3d": 2, "bert": 2}


@dataclass(frozen=True)
class Problem:
    """A network, its inputs (n, ...), what it is to give for them, and the group of each sample, (n,)."""

    model: nn.Module
    inputs: Tensor
    group: Tensor
    target: Tensor

    def losses(self, model: nn.Module, chosen: Tensor | slice = slice(None)) -> Tensor:
        """(n,): the mean squared error of each sample, or of some."""
        losses: Tensor = (model(self.inputs[chosen]) - self.target[chosen]).square().flatten(1).mean(1)
        return losses

    @property
    def weights(self) -> list[nn.Parameter]:
        """The trained weights that have a spectrum."""
        return [weight for weight in self.model.parameters() if weight.requires_grad and weight.dim() > 1]


def problem(name: str, samples: int | None = None, width: int = WIDTH, groups: int = GROUPS) -> Problem:
    """One architecture with random inputs, on the CPU; AutoSpecError for a name that is none."""
    if name not in NAMES:
        raise AutoSpecError(f"model={name!r}: allowed are {', '.join(NAMES)}")
    if name not in SHAPES:
        return bert_block(samples or 8, groups) if name == BERT_BASE else residual_stack(samples or 8, groups)
    n, *shape = SHAPES[name]
    n = n if samples is None else samples
    config = ExperimentConfig(
        architecture=Architecture(name), task=Task.autoencoding, width=width, activation=Activation.relu, seed=0
    )
    config.depth = _DEPTH.get(name, 1)
    model = build(config, tuple(shape), groups)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand((n, *shape), generator=generator)
    return Problem(model, inputs, torch.randint(groups, (n,), generator=generator), inputs)


def bert_block(samples: int, groups: int, tokens: int = 64) -> Problem:
    """One block of BERT-base, 768 wide with 3072 between, reconstructing tokens of a falling spectrum.

    Random tokens of equal variance in every direction, which no data have, would give gradients of a flat spectrum.
    """
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    torch.manual_seed(0)
    config = BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((samples, tokens, 768), generator=generator) * 10 / torch.arange(1, 769)
    return Problem(_FirstOutput(BertLayer(config)), inputs, torch.arange(samples) % groups, inputs)


class _FirstOutput(nn.Module):
    """A module that gives the first of another's outputs."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.block(inputs)
        output: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
        return output


def residual_stack(samples: int, groups: int, pixels: int = 64) -> Problem:
    """A bottleneck block of each of ResNet-50's four stages, with its BatchNorm, telling 1000 classes apart."""
    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    stages = [_Bottleneck(*sizes) for sizes in ((64, 64, 1), (256, 128, 2), (512, 256, 2), (1024, 512, 2))]
    model = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand((samples, 3, pixels, pixels), generator=generator)
    classes = torch.randint(1000, (samples,), generator=generator)
    target = nn.functional.one_hot(classes, 1000).float()
    return Problem(model, inputs, torch.arange(samples) % groups, target)


class _Bottleneck(nn.Module):
    """1 × 1, 3 × 3 and 1 × 1 convolutions to four times the width, beside a 1 × 1 convolution."""

    def __init__(self, entering: int, width: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *(nn.Conv2d(entering, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)),
        )
        self.beside = nn.Sequential(nn.Conv2d(entering, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.path(inputs) + self.beside(inputs))
