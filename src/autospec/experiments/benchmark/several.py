"""What recording costs where several processes train together, and how much of it is their messages.

In every block each arm takes its steps in turn, in all processes at once; plain training has two arms. A ratio is the
processor time of all processes over the mean of plain training's in the same block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from autospec.experiments.benchmark.arms import PLAIN, PLAIN_AGAIN, Step
from autospec.experiments.benchmark.least import grams_of_sides
from autospec.experiments.launch.ranks import other_ranks
from autospec.recording.processes import Processes
from autospec.recording.recorder import SpectralRecorder

EVERY, GROUPS = 10, 4
RECORDED = f"hooks, every {EVERY}"
WARM_UP = 3 * EVERY
"""Steps of each arm before the first block: what is proved and compared on first batches is over by then."""


@dataclass(frozen=True)
class Cost:
    """What recording one model costs.

    Attributes:
        model: its name.
        step_ms: the processor time of a plain step, all processes together.
        again: (blocks,) plain training over itself.
        ratio: (blocks,) recording over plain training.
        least: what that would be if nothing but LAPACK's eigenvalues of the groups' gradients were added.
        messages: what a record sends, in numbers of messages,
        bytes: of bytes from the first process,
        message_ms: and of milliseconds in which the first process sends and waits.
    """

    model: str
    step_ms: float
    again: tuple[float, ...]
    ratio: tuple[float, ...]
    least: float
    messages: float
    bytes: float
    message_ms: float


def perceptron() -> tuple[nn.Module, Tensor]:
    """784 → 256 → 256 → 10, and a process's 256 samples."""
    layers = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*layers), torch.randn(256, 784)


def convolutions() -> tuple[nn.Module, Tensor]:
    """Two convolutions of 32 and 64 channels and a linear layer, and a process's 64 images of 32 × 32."""
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4096, 10)]
    return nn.Sequential(*layers), torch.randn(64, 3, 32, 32)


def transformer() -> tuple[nn.Module, Tensor]:
    """Two layers of 128, and a process's 32 sequences of 64 steps."""
    layer = nn.TransformerEncoderLayer(128, 4, 256, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(32, 64, 128)


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "perceptron": perceptron,
    "convolutions": convolutions,
    "transformer": transformer,
}


def costs(names: Sequence[str], count: int, blocks: int) -> list[Cost]:
    """What recording every ``EVERY`` steps costs in ``count`` processes on this machine, by gloo."""
    with other_ranks(count, "cpu", partial(_measure_all, names=names, blocks=blocks)) as processes:
        assert processes is not None
        return _measure_all(processes, names, blocks)


def _measure_all(processes: Processes, names: Sequence[str], blocks: int) -> list[Cost]:
    torch.set_num_threads(1)
    return [_measure(processes, name, blocks) for name in names]


def _measure(processes: Processes, name: str, blocks: int) -> Cost:
    recorder, recording = _recorded(name)
    arms = {PLAIN: _plain(name), RECORDED: recording, PLAIN_AGAIN: _plain(name)}
    for step in arms.values():
        _seconds(processes, step, WARM_UP)
    before = _sent(recorder)
    # one way after the other in each block, so that the machine's slow moments fall on all of them
    taken = np.array([[_seconds(processes, step, EVERY) for step in arms.values()] for _ in range(blocks)])
    sent = [(now - then) / blocks for now, then in zip(_sent(recorder), before, strict=True)]
    recorder.close(complete=False)
    plain, recorded, again = np.sum(processes.gather(taken), axis=0).T
    without = float(np.median(plain + again)) / 2
    return Cost(
        name,
        without / EVERY * 1000,
        tuple(again / plain),
        tuple(recorded / ((plain + again) / 2)),
        1 + _eigenvalues_s(name) / without,
        sent[0],
        sent[1],
        sent[2] * 1000,
    )


def _eigenvalues_s(name: str) -> float:
    """Processor seconds of the eigenvalues that one record's spectra are had from, which processes share out."""
    model, _ = MODELS[name]()
    sides = [min(weight.flatten(1).shape) for weight in model.parameters() if weight.dim() > 1]
    grams = grams_of_sides(sides * (GROUPS + 1))
    began = time.process_time()
    for gram in grams:
        torch.linalg.eigvalsh(gram)
    return time.process_time() - began


def _sent(recorder: SpectralRecorder) -> tuple[int, int, float]:
    """Messages, bytes and seconds of a recorder so far."""
    assert recorder._meeting.processes is not None
    traffic = recorder._meeting.processes.traffic
    return traffic.messages, traffic.bytes, traffic.seconds


def _parts(name: str) -> tuple[nn.Module, Tensor, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    wrapped = DistributedDataParallel(model)
    return wrapped, inputs, torch.optim.Adam(wrapped.parameters())


def _plain(name: str) -> Step:
    model, inputs, optimizer = _parts(name)

    def step() -> None:
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _recorded(name: str) -> tuple[SpectralRecorder, Step]:
    model, inputs, optimizer = _parts(name)
    groups = [str(group) for group in range(GROUPS)]
    recorder = SpectralRecorder(model, groups=groups, every=EVERY, floor="formula")
    group = torch.arange(len(inputs)) % GROUPS

    def step() -> None:
        with recorder.batch(group):
            model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.record()

    return recorder, step


def _seconds(processes: Processes, step: Step, repetitions: int) -> float:
    """The processor time of some steps in this process, which all begin together."""
    processes.any(False)
    began = time.process_time()
    for _ in range(repetitions):
        step()
    return time.process_time() - began


def table(costs: Sequence[Cost]) -> str:
    """A table in Markdown, a row for each model: medians, and quartiles of ratios."""
    lines = [
        "| model | ms a step without | plain again | ratio | eigenvalues alone | messages a record | KiB a record "
        "| ms in messages |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one.model} | {one.step_ms:.1f} | {_quartiles(one.again)} | {_quartiles(one.ratio)} | {one.least:.2f} | "
        f"{one.messages:.1f} | "
        f"{one.bytes / 1024:.0f} | {one.message_ms:.1f} |"
        for one in costs
    ]
    return "\n".join(lines) + "\n"


def _quartiles(values: Sequence[float]) -> str:
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.2f} ({low:.2f}-{high:.2f})"
