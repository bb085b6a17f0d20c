"""What commands say while they work, on the console."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from autospec.experiments.runs.progress import ConsoleHandler

QUIET = ("autospec.experiments.datasets", "autospec.capture.layers")
"""What data sets and models say of themselves, which is of use once."""


def log_to_console() -> None:
    """Show AutoSpec's messages on standard error, above a progress bar where there is one."""
    logging.basicConfig(format="%(message)s", handlers=[ConsoleHandler()])
    logging.getLogger("autospec").setLevel(logging.INFO)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """A context in which data sets and models say nothing of themselves; the runs did."""
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
