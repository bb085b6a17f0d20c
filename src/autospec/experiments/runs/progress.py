"""What a user at the terminal sees: a progress bar, and messages that do not break it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from typing import Never

    from tqdm import tqdm


class ConsoleHandler(logging.Handler):
    """Log messages on standard error, above a progress bar where there is one.

    A message about data is shown once: the runs of a sweep share a cohort, and each logs its account.
    """

    _messages_about_data: ClassVar[set[str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message, unless it is about data and was written before."""
        from tqdm import tqdm

        text = self.format(record)
        if record.name.startswith("autospec.experiments.datasets"):
            if text in self._messages_about_data:
                return
            self._messages_about_data.add(text)
        tqdm.write(text, file=sys.stderr)


def bar(total: int, done: int, label: str) -> tqdm[Never]:
    """Return a progress bar over epochs with loss and time left; silent where standard error is not a terminal.

    Args:
        total: the number of epochs.
        done: the epochs done before this launch.
        label: what stands before the bar.
    """
    from tqdm import tqdm

    return tqdm(total=total, initial=done, desc=label, unit="epoch", disable=None, leave=False, dynamic_ncols=True)


def duration(seconds: float) -> str:
    """Return a duration in words, in hours, minutes or seconds, whichever reads best."""
    for unit, length_s in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length_s:
            return f"{seconds / length_s:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds:.0f} s"
