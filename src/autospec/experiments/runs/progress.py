"""What a person at the terminal sees: a bar while training, messages that do not tear it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from typing import Never

    from tqdm import tqdm


class ConsoleHandler(logging.Handler):
    """Log messages on standard error, above a progress bar where there is one.

    What is said of data is said once: the runs of a sweep share a cohort, and each has its account in its own log.
    """

    _said_of_data: ClassVar[set[str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        text = self.format(record)
        if record.name.startswith("autospec.experiments.datasets"):
            if text in self._said_of_data:
                return
            self._said_of_data.add(text)
        tqdm.write(text, file=sys.stderr)


def bar(total: int, done: int, label: str) -> tqdm[Never]:
    """A bar over epochs with loss and time left; silent where standard error is not a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, initial=done, desc=label, unit="epoch", disable=None, leave=False, dynamic_ncols=True)


def duration(seconds: float) -> str:
    """A stretch of time in the unit that reads best."""
    for unit, length_s in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length_s:
            return f"{seconds / length_s:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds:.0f} s"
