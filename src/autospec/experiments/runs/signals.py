"""Signals that ask a run to stop, postponed until the epoch is over and its checkpoint written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

POSTPONED = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""From SLURM at the end of a job's time, from ``kill``, from the keyboard, from a terminal that is closed."""


class PostponedSignals:
    """The signals that have arrived and wait; a second one of a kind takes effect at once."""

    def __init__(self) -> None:
        self._waiting: list[signal.Signals] = []
        self._before = {number: signal.getsignal(number) for number in POSTPONED}
        for number in [number for number, before in self._before.items() if before in (signal.SIG_IGN, None)]:
            del self._before[number]  # what the process was begun to ignore stays ignored

    @property
    def names(self) -> str:
        """The names of the signals that wait; empty while there are none."""
        return ", ".join(waiting.name for waiting in self._waiting)

    def act(self) -> None:
        """Let the waiting signals take effect: SLURM's requeues its job, others end the process."""
        while self._waiting:
            self._act(self._waiting.pop(0), None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: let it wait, or take effect where one of its kind waits already."""
        arrived = signal.Signals(number)
        if arrived in self._waiting:
            self._act(arrived, frame)
        else:
            self._waiting.append(arrived)

    def _act(self, arrived: signal.Signals, frame: FrameType | None) -> None:
        """What the signal would have done without us."""
        handler = self._before[arrived]
        if callable(handler):
            handler(arrived, frame)
        else:
            raise SystemExit(128 + arrived)  # as a shell reports a process that a signal ended


@contextlib.contextmanager
def postpone_signals() -> Iterator[PostponedSignals]:
    """A context in which signals that ask to stop wait until ``act()`` is called, or it ends without an error.

    Outside the main thread nothing is postponed.

    Yields:
        The signals that wait.
    """
    signals = PostponedSignals()
    if threading.current_thread() is not threading.main_thread():  # elsewhere Python lets nobody handle signals
        yield signals
        return
    for number in signals._before:
        signal.signal(number, signals._note)
    try:
        yield signals
    finally:
        for number, before in signals._before.items():
            signal.signal(number, before)
    signals.act()
