"""Another process that is gone: torch's failure to reach it becomes one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from autospec.errors import AutoSpecError

if TYPE_CHECKING:
    from autospec.recording.processes import Processes

_FAILURES = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "timed out",
    "timeout",
    "socket",
    "peer",
    "nccl",
    "gloo",
)
"""What stands in the messages of torch's communication when another process is gone."""


class LostProcess(AutoSpecError):
    """A process that trained with this one has ended, or does not answer in time."""


@contextlib.contextmanager
def answering(processes: Processes | None) -> Iterator[None]:
    """A context in which torch's failure to reach another process becomes one line."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if processes is None or not any(word in text.lower() for word in _FAILURES):
            raise
        raise LostProcess(
            f"rank {processes.rank}: another of the {processes.size} processes has ended or does not answer "
            f"({text.splitlines()[0][:120]}); the file holds what was recorded up to its last writing"
        ) from error
