"""Every architecture, for both tasks, all activations, any width and size."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from cases import captured
from torch import Tensor, nn

from autospec.experiments import models
from autospec.experiments.config.schema import Activation, Architecture, ExperimentConfig, Task
from autospec.experiments.training.tasks import TASKS
from autospec.store.schema import layer_name

IMAGES = [(1, 28, 28), (1, 7, 10), (1, 1, 1)]
SERIES = [(16, 1), (13, 5), (1, 3)]
MAPS = [(1, 9, 11, 8), (1, 5, 4, 3), (1, 1, 1, 2)]
INPUTS = {
    Architecture.mlp: [(7,), *reversed(IMAGES[:2]), *SERIES[:2], MAPS[1]],
    Architecture.rnn: SERIES,
    Architecture.lstm: SERIES,
    Architecture.bert: SERIES,
    Architecture.cnn1d: SERIES,
    Architecture.cnn2d: IMAGES + SERIES,
    Architecture.cnn3d: MAPS,
}
"""Shapes of one sample; odd, even and very small ones."""

ACTIVATIONS = [kind for kind in Activation if kind is not Activation.custom]
CASES = [
    (architecture, inputs, task, activation)
    for architecture in INPUTS
    for inputs, task, activation in itertools.product(INPUTS[architecture], Task, ACTIVATIONS)
]
TRAINED = [case for case in CASES if case[1] == INPUTS[case[0]][1]]
"""One shape for each architecture."""
SAMPLES, CLASSES = 6, 3


def configuration(
    architecture: Architecture, task: Task, activation: Activation, width: int = 8, depth: int = 1, seed: int = 1
) -> ExperimentConfig:
    return ExperimentConfig(
        architecture=architecture, task=task, activation=activation, width=width, depth=depth, seed=seed
    )


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(("architecture", "inputs", "task", "activation"), CASES)
@pytest.mark.parametrize("width", [1, 10])
@pytest.mark.parametrize("depth", [1, 3])
def test_output_shape_and_no_idle_weight(architecture, inputs, task, activation, width, depth):
    model = models.build(configuration(architecture, task, activation, width, depth), inputs, CLASSES)
    output = model(torch.randn(SAMPLES, *inputs))
    assert output.shape == ((SAMPLES, *inputs) if task is Task.autoencoding else (SAMPLES, CLASSES))
    output.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def structured(inputs: tuple[int, ...], samples: int = 30) -> tuple[Tensor, Tensor]:
    """Samples (n, ...) of one pattern per class, each scaled and a little noisy, and their classes."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(CLASSES, *inputs, generator=generator)
    target = torch.arange(samples) % CLASSES
    scale = 1 + torch.rand(samples, *[1] * len(inputs), generator=generator)
    return scale * patterns[target] + 0.1 * torch.randn(samples, *inputs, generator=generator), target


@pytest.mark.parametrize(("architecture", "inputs", "task", "activation"), TRAINED)
def test_learns(architecture, inputs, task, activation):
    samples, target = structured(inputs)
    model = models.build(configuration(architecture, task, activation, width=16), inputs, CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        TASKS[task].losses(model(samples), samples, target).mean().backward()
        optimizer.step()
    reached = TASKS[task].metric(model(samples), samples, target, samples.mean(0, keepdim=True)).item()
    assert reached > (0.3 if task is Task.autoencoding else 0.8)  # 0 is the mean of the samples; chance is 1/3


@pytest.mark.parametrize(("architecture", "inputs", "task", "activation"), TRAINED)
def test_seed_alone_decides_the_weights(architecture, inputs, task, activation):
    config = configuration(architecture, task, activation)
    first = weights(models.build(config, inputs, CLASSES))
    torch.rand(3)
    assert torch.equal(first, weights(models.build(config, inputs, CLASSES)))
    other = configuration(architecture, task, activation, seed=2)
    assert not torch.equal(first, weights(models.build(other, inputs, CLASSES)))


@pytest.mark.parametrize(("architecture", "inputs", "task", "activation"), TRAINED)
def test_every_trained_matrix_is_explained(architecture, inputs, task, activation):
    model = models.build(configuration(architecture, task, activation, depth=2), inputs, CLASSES).double()
    samples = torch.randn(SAMPLES, *inputs, dtype=torch.float64)
    factors = captured(model, lambda: model(samples).square().sum().backward())
    trained = {name: p for name, p in model.named_parameters() if p.dim() > 1 and p.requires_grad}
    assert set(factors) == {layer_name(name) for name in trained}
    for name, parameter in trained.items():
        (part,) = factors[layer_name(name)]
        whole = part.product(torch.arange(SAMPLES))
        torch.testing.assert_close(whole, parameter.grad.flatten(1), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("architecture", [Architecture.rnn, Architecture.lstm, Architecture.bert, Architecture.cnn1d])
@pytest.mark.parametrize("task", Task)
def test_samples_do_not_touch_each_other(architecture, task):
    model = models.build(configuration(architecture, task, Activation.sigmoid), (13, 5), CLASSES).double()
    samples = torch.randn(SAMPLES, 13, 5, dtype=torch.float64)
    apart = torch.cat([model(samples[:2]), model(samples[2:])])
    torch.testing.assert_close(model(samples), apart, rtol=0, atol=1e-12)


def test_layer_names_read_as_titles():
    def names(architecture: Architecture, task: Task, depth: int = 2) -> list[str]:
        model = models.build(configuration(architecture, task, Activation.relu, depth=depth), (13, 5), CLASSES)
        return [layer_name(name) for name, p in model.named_parameters() if p.dim() > 1 and p.requires_grad]

    assert names(Architecture.mlp, Task.autoencoding) == ["hidden.0", "hidden.1", "head"]
    assert names(Architecture.cnn1d, Task.autoencoding) == ["encoder.0", "encoder.1", "decoder.0", "decoder.1"]
    assert names(Architecture.cnn1d, Task.classification) == ["encoder.0", "encoder.1", "head"]
    for architecture in (Architecture.rnn, Architecture.lstm):
        assert names(architecture, Task.autoencoding, depth=1) == [
            "recurrent.weight_ih_l0",
            "recurrent.weight_hh_l0",
            "head",
        ]
    assert "bert.pooler.dense" in names(Architecture.bert, Task.classification)
    assert "bert.pooler.dense" not in names(Architecture.bert, Task.autoencoding)


def test_transformers_is_imported_by_bert_alone():
    modules = ", ".join(f"autospec.experiments.models{name}" for name in ("", ".bert", ".cnn"))
    code = f"import sys, {modules}; print('transformers' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"
