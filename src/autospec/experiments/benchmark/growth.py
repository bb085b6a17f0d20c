"""How what recording adds to a step grows with a network and its data, beside the cost law."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autospec.experiments.benchmark.arms import ARMS, FAST, HOOKS, PLAIN, Step
from autospec.experiments.benchmark.problems import Problem

WIDTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
GROUP_COUNTS = (1, 2, 4, 10, 50)
SAMPLE_COUNTS = (100, 300, 1000, 3000, 10000)
LENGTHS = (1, 4, 16, 64, 256)
LONGEST_S = 20.0
"""A curve ends where a step with spectra takes longer than this."""


@dataclass(frozen=True)
class Point:
    """One network: seconds of a plain step, what each engine adds to it, and multiplications of the cost law.

    The law: ``(groups + 1) Σ_layers min(m n², m² n)`` for the decompositions of weights of shape (m, n); ``products``
    is what the groups' gradients take, ``rows Σ_layers m n``.
    """

    axis: str
    value: int
    plain_s: float
    added_s: dict[str, float]
    law: float
    products: float


def perceptron(width: int = 64, groups: int = 4, samples: int = 1000, length: int = 1) -> Problem:
    """Two square layers, on vectors or on each step of a sequence (``length``)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
    shape = (samples, width) if length == 1 else (samples, length, width)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(shape, generator=generator)
    return Problem(model, inputs, torch.arange(samples) % groups, inputs)


AXES: dict[str, tuple[Sequence[int], Callable[[int], Problem]]] = {
    "width": (WIDTHS, lambda width: perceptron(width=width, samples=500)),
    "groups": (GROUP_COUNTS, lambda groups: perceptron(groups=groups)),
    "samples": (SAMPLE_COUNTS, lambda samples: perceptron(samples=samples)),
    "length": (LENGTHS, lambda length: perceptron(samples=200, length=length)),
}
"""What grows, the values it takes, and the network of each."""


def curve(axis: str, repetitions: int = 5) -> list[Point]:
    """The points of an axis, as far as a step takes no longer than ``LONGEST_S``."""
    torch.set_num_threads(1)
    values, problem_of = AXES[axis]
    points: list[Point] = []
    for value in values:
        points.append(_point(axis, value, problem_of(value), repetitions))
        if max(points[-1].added_s.values()) > LONGEST_S:
            break
    return points


def _point(axis: str, value: int, problem: Problem, repetitions: int) -> Point:
    seconds = {name: _least(ARMS[name](copy.deepcopy(problem)), repetitions) for name in (PLAIN, FAST, HOOKS)}
    shapes = [weight.shape for weight in problem.weights]
    groups, rows = int(problem.group.max()) + 1, problem.inputs[..., 0].numel()
    return Point(
        axis,
        value,
        seconds[PLAIN],
        {name: seconds[name] - seconds[PLAIN] for name in (FAST, HOOKS)},
        float((groups + 1) * sum(m * n * min(m, n) for m, n in shapes)),
        float(rows * sum(m * n for m, n in shapes)),
    )


def _least(step: Step, repetitions: int) -> float:
    """The least processor time of a step, after two that warm up; a slow step is timed once."""
    step()
    step()
    taken: list[float] = []
    while not taken or (len(taken) < repetitions and sum(taken) < LONGEST_S):
        began = time.process_time()
        step()
        taken.append(time.process_time() - began)
    # the least: whatever else the machine does can only add to it
    return min(taken)


def growth_table(points: Sequence[Point]) -> str:
    """A row for each point: the value, milliseconds, and nanoseconds per multiplication of the law."""
    axis = points[0].axis
    lines = [
        f"| {axis} | plain, ms | fast adds, ms | hooks adds, ms | law, multiplications | products, multiplications |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for point in points:
        milliseconds = (point.plain_s, point.added_s[FAST], point.added_s[HOOKS])
        cells = [str(point.value), *(f"{1e3 * value:.1f}" for value in milliseconds)]
        lines.append(f"| {' | '.join([*cells, f'{point.law:.1e}', f'{point.products:.1e}'])} |")
    return "\n".join(lines)
