"""Timing of the arms: interleaved rounds in one process, one thread, the processor time of each."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from autospec.experiments.benchmark.arms import ARMS, ENGINES, PLAIN, PLAIN_AGAIN, RecordedStep, Step
from autospec.experiments.benchmark.peers import first_line
from autospec.experiments.benchmark.problems import Problem

SHORTEST_S = 0.1
"""An arm runs so many steps in a round that they take about this time, at least one."""

WARM_UP = 3
RECORDER_WARM_UP = 9
"""Steps of each arm before the first round. In a recorder's the fast engine chooses its way, and what it rests on is
proved; later proofs are part of what is timed."""


def time_ratios(
    problem: Problem, names: Sequence[str], rounds: int
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, str]]:
    """(rounds,) by the arm's name: its processor time over the mean of plain training's two in the same round.

    That of ``plain again`` is over the first plain one alone. And why each other arm cannot do the model.
    """
    torch.set_num_threads(1)
    steps, reasons = _warmed_up(problem, dict.fromkeys((PLAIN, PLAIN_AGAIN, *names)))
    repetitions = {name: _repetitions(name, step) for name, step in steps.items()}
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
            _seconds(steps[name], _warm_up(name))
        except Exception as error:  # whatever a library raises is its answer
            if name == PLAIN:
                raise
            steps.pop(name, None)
            reasons[name] = first_line(error)
    return steps, reasons


def _warm_up(name: str) -> int:
    """How many steps an arm takes before it is timed."""
    if name.split(",")[0] not in ENGINES:
        return WARM_UP
    return RECORDER_WARM_UP * (10 if "every 10" in name else 1)


def _repetitions(name: str, step: Step) -> int:
    """How many steps of an arm make a round; tens where spectra are taken at every tenth."""
    if "every 10" in name:
        return 10
    return max(1, round(SHORTEST_S / _seconds(step, 1)))


def _round(steps: Mapping[str, Step], repetitions: Mapping[str, int], place: int) -> dict[str, float]:
    """The seconds of a step of every arm, which take turns at going first."""
    names = list(steps)
    start = place % len(names)
    order = names[start:] + names[:start]
    return {name: _seconds(steps[name], repetitions[name]) / repetitions[name] for name in order}


def _seconds(step: Step, repetitions: int) -> float:
    """The processor time of some steps, and of the spectra of all records in them."""
    began = time.process_time()
    for _ in range(repetitions):
        step()
    if isinstance(step, RecordedStep):
        step.settle()  # those that still wait: else a short round would leave them to the next
    return time.process_time() - began


def peak_memory(problem: Problem, name: str, steps: int = 3) -> tuple[int, int]:
    """The process's memory in bytes, before an arm's first step and at its peak; for a process of its own."""
    torch.set_num_threads(1)
    step = ARMS[name](problem)
    before = _forget_peak()
    for _ in range(steps):
        step()
    return before, _peak()


_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def _forget_peak() -> int:
    """The memory that the process holds, in bytes; on Linux its peak is counted from here on.

    Imports may have held more, and a process that another one started begins with the peak of that.
    """
    if _CLEAR.exists():
        _CLEAR.write_text("5")
    return _peak()


def _peak() -> int:
    """The most memory that the process has held, in bytes."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
