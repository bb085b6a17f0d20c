"""The log of a run: its messages, and the traceback that ended it."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autospec.errors import AutoSpecError, AutoSpecWarning
from autospec.experiments.config.messages import explain, in_one_line
from autospec.experiments.runs.folder import RunFolder
from autospec.harmless import Formatter

log = logging.getLogger(__name__)

TAIL_BYTES = 1 << 16
"""Bytes at the end of a log in which its last message is looked for."""


@dataclass(frozen=True)
class Message:
    """One message of a log, without its traceback."""

    level: str
    text: str


class _QuietFile(logging.FileHandler):
    """A log file that is made by its first message and never stands in the way of the run, as on a full disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True, errors="backslashreplace")
        self.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))

    @property
    def begun(self) -> bool:
        return self.stream is not None

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def log_run(folder: RunFolder, keep_mistakes: bool) -> Iterator[None]:
    """A context whose messages, and the error that ends it, are written to the run's log.

    Args:
        folder: the run's.
        keep_mistakes: log even a user's mistake that ends the run before anything else is logged, which otherwise
            leaves no log behind; for jobs that nobody watches.
    """
    handler = _QuietFile(folder.log)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", AutoSpecWarning)
            warnings.showwarning = lambda message, *_: log.warning("%s: %s", folder.run_id, message)
            yield
    except Exception as error:
        mistake = isinstance(error, AutoSpecError)
        if handler.begun or keep_mistakes or not mistake:
            text = explain(error) if mistake else in_one_line(error)
            # here only: the console has its own short message
            handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), sys.exc_info()))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def last_message(path: Path) -> Message | None:
    """Return the last message of a log, None where there is no log or no message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            tail = file.read().decode(errors="replace")
    except OSError:
        return None
    messages = re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([A-Z]+) (.*)$", tail, re.MULTILINE)
    return Message(*messages[-1]) if messages else None
