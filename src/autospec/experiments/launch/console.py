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
def quietly(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """A context in which parts of the program say what is of some level alone.

    Args:
        names: The parts; data sets and models where none is named: what they say of themselves, the runs did.
        level: Of what is still said.

    Yields:
        Nothing.
    """
    loggers = [logging.getLogger(name) for name in names or QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
