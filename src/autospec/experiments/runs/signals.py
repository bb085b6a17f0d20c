"""Signals that ask a run to stop: what they do waits until the epoch is over and its checkpoint written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

POSTPONED = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
"""From SLURM at the end of a job's time, from ``kill``, from the keyboard."""


class PostponedSignals:
    """The signals that have come and not yet done what they do; a second one of a kind does it at once."""

    def __init__(self) -> None:
        self._came: list[signal.Signals] = []
        self._before = {number: signal.getsignal(number) for number in POSTPONED}
        for number in [number for number, before in self._before.items() if before in (signal.SIG_IGN, None)]:
            del self._before[number]  # what the process was begun to ignore stays ignored

    @property
    def names(self) -> str:
        """The signals that have come; empty while there are none."""
        return ", ".join(came.name for came in self._came)

    def act(self) -> None:
        """Do what the signals that have come would have done: SLURM's requeues its job, others end the process."""
        while self._came:
            self._act(self._came.pop(0), None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        came = signal.Signals(number)
        if came in self._came:
            self._act(came, frame)
        else:
            self._came.append(came)

    def _act(self, came: signal.Signals, frame: FrameType | None) -> None:
        before = self._before[came]
        if callable(before):
            before(came, frame)
        else:
            raise SystemExit(128 + came)  # as a shell reports a process that a signal ended


@contextlib.contextmanager
def postpone_signals() -> Iterator[PostponedSignals]:
    """Hold back the signals that ask to stop until ``act()`` is called, or the context ends without an error."""
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
