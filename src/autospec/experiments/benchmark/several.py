"""What recording costs where several processes train together, and how much of it is their messages.

In every block each arm takes its steps in turn, in all processes at once; plain training has two arms. A ratio is the
processor time of all processes over the mean of plain training's in the same block, or the slowest's time on the clock.
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

from autospec.capture.hooks import HookListener
from autospec.capture.layers import watched_modules
from autospec.experiments.benchmark.arms import PLAIN, PLAIN_AGAIN, Step
from autospec.experiments.launch.ranks import other_ranks
from autospec.recording.processes import Processes
from autospec.recording.recorder import SpectralRecorder
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import SampleGroups
from autospec.spectra.singular import gram
from autospec.spectra.symmetric import eigenvalues as solve

EVERY, GROUPS = 10, 4
RECORDED = f"hooks, every {EVERY}"
REPETITIONS = 9
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
        clock: (blocks,) the same on the clock, where more cores than processes are free.
        eigenvalues: what that would be if nothing but LAPACK's eigenvalues of the groups' gradients were added.
        least: and if the groups' products and their Gram matrices were, too, from which they are had.
        messages: what a record sends, in numbers of messages,
        bytes: of bytes from the first process,
        message_ms: and of milliseconds in which the first process sends and waits.
    """

    model: str
    step_ms: float
    again: tuple[float, ...]
    ratio: tuple[float, ...]
    clock: tuple[float, ...]
    eigenvalues: float
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
    of_processes = np.array(processes.gather(taken))  # (processes, blocks, arms, kinds of time)
    plain, recorded, again = of_processes[..., 0].sum(0).T
    slowest = of_processes[..., 1].max(0)
    without = float(np.median(plain + again)) / 2
    eigenvalues_s, least_s = _least_s(name, processes.size)
    return Cost(
        name,
        without / EVERY * 1000,
        tuple(again / plain),
        tuple(recorded / ((plain + again) / 2)),
        tuple(slowest[:, 1] / slowest[:, [0, 2]].mean(1)),
        1 + eigenvalues_s / without,
        1 + least_s / without,
        sent[0],
        sent[1],
        sent[2] * 1000,
    )


def _least_s(name: str, count: int) -> tuple[float, float]:
    """Processor seconds of a record's eigenvalues, and of these and what they are had from, in ``count`` processes.

    That is the groups' products ``Δᵀ A`` in every process, of its own samples, and one Gram matrix of each sum.
    """
    model, inputs = MODELS[name]()
    parts: list[GradientFactors] = []
    with HookListener(model, watched_modules(model), lambda use, part, owners: parts.append(part)).listening():
        model(inputs).square().mean().backward()
    groups = SampleGroups.of(torch.arange(len(inputs)) % GROUPS, GROUPS + 1)
    taken = []
    for _ in range(REPETITIONS):
        began = time.process_time()
        products = [part.products(groups) for part in parts]
        multiplied = time.process_time()
        sums = [torch.cat([one[:GROUPS], one.sum(0, keepdim=True)]).double() for one in products]
        summed = time.process_time()
        grams = [gram(one) for one in sums]
        squared = time.process_time()
        for one in grams:
            solve(one)
        taken.append((multiplied - began, squared - summed, time.process_time() - squared))
    of_products, of_grams, of_eigenvalues = np.median(taken, axis=0)
    return float(of_eigenvalues), float(count * of_products + of_grams + of_eigenvalues)


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


def _seconds(processes: Processes, step: Step, repetitions: int) -> tuple[float, float]:
    """The processor time of some steps in this process, which all begin together, and their time on the clock."""
    processes.any(False)
    began, clock = time.process_time(), time.perf_counter()
    for _ in range(repetitions):
        step()
    return time.process_time() - began, time.perf_counter() - clock


def table(costs: Sequence[Cost]) -> str:
    """A table in Markdown, a row for each model: medians, and quartiles of ratios."""
    lines = [
        "| model | ms a step without | plain again | ratio | on the clock | eigenvalues alone | and products "
        "| messages a record | KiB a record | ms in messages |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one.model} | {one.step_ms:.1f} | {_quartiles(one.again)} | {_quartiles(one.ratio)} | "
        f"{_quartiles(one.clock)} | {one.eigenvalues:.2f} | {one.least:.2f} | {one.messages:.1f} | "
        f"{one.bytes / 1024:.0f} | {one.message_ms:.1f} |"
        for one in costs
    ]
    return "\n".join(lines) + "\n"


def _quartiles(values: Sequence[float]) -> str:
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.2f} ({low:.2f}-{high:.2f})"
