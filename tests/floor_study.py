"""How far float32 is from float64 at the same weights, in units of the noise floor; run as a script, it prints JSON.

A script because the instructions that torch computes with (``ATEN_CPU_CAPABILITY``) are chosen when it is loaded.
"""

from __future__ import annotations

import copy
import json
import sys
from types import SimpleNamespace

import numpy as np
import torch

from autospec import SpectralRecorder
from autospec.experiments import models
from autospec.experiments.config.schema import Activation, Architecture, Task
from autospec.experiments.training.tasks import TASKS

SHAPES = {
    "mlp": (33,),
    "rnn": (10, 8),
    "lstm": (10, 8),
    "bert": (6, 8),
    "cnn1d": (24, 8),
    "cnn2d": (1, 12, 12),
    "cnn3d": (1, 7, 7, 7),
}
GROUPS = ["a", "b", "c"]
STATISTICS = ("gradient", "activation", "adjoint")


def samples(shape, n=60):
    """Inputs of low rank and noise, (n, ...), and three classes."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(n) % 3
    latent = torch.randn(n, 6, generator=generator) + 1.5 * torch.nn.functional.one_hot(label, 6)
    features = int(np.prod(shape))
    inputs = latent @ torch.randn(6, features, generator=generator) / 2
    inputs = inputs + 0.3 * torch.randn(n, features, generator=generator)
    return inputs.reshape(n, *shape), label


def network(architecture, task, width, activation="relu"):
    """One of the paper's networks, untrained."""
    config = SimpleNamespace(
        architecture=Architecture[architecture],
        task=Task[task],
        width=width,
        depth=2 if architecture.startswith(("cnn", "bert")) else 1,
        activation=Activation[activation],
        seed=1,
    )
    return models.build(config, SHAPES[architecture], 3)


def recorded(model, inputs, label, task, floor):
    """One record of a model's gradients, by dataset; the model is left as it was."""
    recorder = SpectralRecorder(model, groups=GROUPS, statistics=STATISTICS, floor=floor)
    with recorder.batch(label):
        TASKS[Task[task]].losses(model(inputs), inputs, label).mean().backward()
    recorder.end_epoch()
    recorder.close()
    model.zero_grad()
    return {array.field.path: array.values[0] for array in recorder.table}


def ratios(architecture, task, width, activation, stages, records, floor="measured", learning_rate=3e-3):
    """|float32 - float64| over the noise floor of every value, by the epoch at which ``records`` records are made."""
    inputs, label = samples(SHAPES[architecture])
    model = network(architecture, task, width, activation)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    found = {stage: {name: [] for name in STATISTICS} for stage in stages}
    for epoch in range(max(stages) + records):
        for stage in stages:
            if stage <= epoch < stage + records:
                single = recorded(model, inputs, label, task, floor)
                double = recorded(copy.deepcopy(model).double(), inputs.double(), label, task, "formula")
                for path in [path for path in single if path.startswith("layers/")]:
                    layer, name = path.rsplit("/", 1)
                    if name in STATISTICS and "floor" not in layer:
                        difference = abs(single[path] - double[path])
                        limit = single[f"{layer}/floor/{name}"][:, None]
                        ratio = np.divide(difference, limit, out=np.zeros_like(difference), where=difference > 0)
                        found[stage][name].append(ratio.ravel())
        optimizer.zero_grad()
        TASKS[Task[task]].losses(model(inputs), inputs, label).mean().backward()
        optimizer.step()
    return {stage: {name: np.concatenate(parts) for name, parts in own.items()} for stage, own in found.items()}


def carried_ratios(architecture, task, width, activation, epochs, seed, learning_rate=3e-3):
    """|float32 - float64| over the calibrated floor of every value at the records whose floor is carried."""
    inputs, label = samples(SHAPES[architecture])
    torch.manual_seed(seed)
    model = network(architecture, task, width, activation)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    recorder = SpectralRecorder(model, groups=GROUPS, statistics=STATISTICS)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    found = {name: [] for name in STATISTICS}
    for epoch in range(epochs):
        double = copy.deepcopy(model).double()
        optimizer.zero_grad()
        with recorder.batch(label):
            TASKS[Task[task]].losses(model(inputs), inputs, label).mean().backward()
        recorder.end_epoch()
        optimizer.step()
        table = recorder.table
        if table[f"layers/{recorder.layers[0]}/floor/measured"][epoch]:
            continue
        precise = recorded(double, inputs.double(), label, task, "formula")
        for layer in recorder.layers:
            for name in STATISTICS:
                path = f"layers/{layer}/{name}"
                limit = table[f"layers/{layer}/floor/{name}"][epoch][:, None]
                found[name].append((abs(table[path][epoch] - precise[path]) / limit).ravel())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def summary(cases, stages, records):
    """Per network, stage and statistic: how many values, the largest ratio and its 99th percentile."""
    rows = []
    for case in cases:
        for stage, by_name in ratios(*case, stages, records).items():
            for name, values in by_name.items():
                rows.append([*case, stage, name, len(values), float(values.max()), float(np.quantile(values, 0.99))])
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    architectures, widths, last, records = sys.argv[1:5]
    chosen = [
        (architecture, task, int(width), activation)
        for architecture in architectures.split(",")
        for task in ("autoencoding", "classification")
        for width in widths.split(",")
        for activation in (("relu", "tanh") if width == "8" else ("relu",))
    ]
    result = summary(chosen, (0, int(last)), int(records))
    print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), "rows": result}))  # noqa: T201
