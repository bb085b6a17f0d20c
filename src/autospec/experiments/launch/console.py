"""What commands say while they work, on the console."""

from __future__ import annotations

import logging

from autospec.experiments.runs.progress import ConsoleHandler


def log_to_console() -> None:
    """Show AutoSpec's messages on standard error, above a progress bar where there is one."""
    logging.basicConfig(format="%(message)s", handlers=[ConsoleHandler()])
    logging.getLogger("autospec").setLevel(logging.INFO)
