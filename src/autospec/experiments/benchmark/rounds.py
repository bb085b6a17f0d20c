"""Timing of the arms: interleaved rounds in one process, one thread, the processor time of each."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from autospec.experiments.benchmark.arms import ARMS, PLAIN, PLAIN_AGAIN, Step
from autospec.experiments.benchmark.peers import first_line
from autospec.experiments.benchmark.problems import Problem

SHORTEST_S = 0.1
"""An arm runs as many steps in a round as plain training does in this time."""

WARM_UP = 3
"""Steps of each arm before the first round; the fast engine chooses its method in them."""


def time_ratios(
    problem: Problem, names: Sequence[str], rounds: int
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, str]]:
    """(rounds,) by the arm's name: its processor time over the mean of plain training's two in the same round.

    That of ``plain again`` is over the first plain one alone. And why each other arm cannot do the model.
    """
    torch.set_num_threads(1)
    steps, reasons = _warmed_up(problem, dict.fromkeys((PLAIN, PLAIN_AGAIN, *names)))
    repetitions = max(1, round(SHORTEST_S / _seconds(steps[PLAIN], 1)))
    repetitions = -(-repetitions // 10) * 10 if any("every 10" in name for name in steps) else repetitions
    taken = [_round(steps, repetitions, place) for place in range(rounds)]
    ratios = {}
    for name in steps:
        plain = [one[PLAIN] if name == PLAIN_AGAIN else (one[PLAIN] + one[PLAIN_AGAIN]) / 2 for one in taken]
        ratios[name] = np.array([one[name] for one in taken]) / np.array(plain)
    return ratios, reasons


def _warmed_up(problem: Problem, names: Iterable[str]) -> tuple[dict[str, Step], dict[str, str]]:
    """The arms that can train a model, after their first steps, and why the others cannot."""
    steps, reasons = {}, {}
    for name in names:
        try:
            steps[name] = ARMS[name](problem)
            _seconds(steps[name], WARM_UP)
        except Exception as error:  # whatever a library raises is its answer
            if name == PLAIN:
                raise
            steps.pop(name, None)
            reasons[name] = first_line(error)
    return steps, reasons


def _round(steps: Mapping[str, Step], repetitions: int, place: int) -> dict[str, float]:
    """The seconds of every arm, which take turns at going first."""
    names = list(steps)
    start = place % len(names)
    return {name: _seconds(steps[name], repetitions) for name in names[start:] + names[:start]}


def _seconds(step: Step, repetitions: int) -> float:
    """The processor time of some steps."""
    began = time.process_time()
    for _ in range(repetitions):
        step()
    return time.process_time() - began


def peak_memory(problem: Problem, name: str, steps: int = 3) -> tuple[int, int]:
    """The process's memory in bytes, before an arm's first step and at its peak; for a process of its own."""
    torch.set_num_threads(1)
    step = ARMS[name](problem)
    before = _resident()
    for _ in range(steps):
        step()
    return before, _resident()


def _resident() -> int:
    """The most memory that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
