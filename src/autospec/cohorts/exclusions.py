"""The account of a cohort: who was found, who was left out and why."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from autospec.errors import AutoSpecError

NAMED_AT_MOST = 6


@dataclass
class Account:
    """What was found, joined and left out, line by line; no subject leaves a cohort without a line here."""

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)

    def note(self, line: str) -> None:
        """Add a line.

        Args:
            line: What to say.
        """
        self.lines.append(line)

    def warn(self, line: str) -> None:
        """Add a line that a reader must not miss.

        Args:
            line: What to say.
        """
        self.warnings.append(line)

    def drop(self, subject: str, reason: str) -> None:
        """Leave a subject out; the first reason stands.

        Args:
            subject: The subject's id.
            reason: Why, as the end of a sentence about the subject.
        """
        self.dropped.setdefault(subject, reason)

    def text(self) -> tuple[str, ...]:
        """Every line, warnings after the others and the subjects that were left out last.

        Returns:
            The lines.
        """
        return (
            *self.lines,
            *self.warnings,
            *(f"left out: {subject}: {reason}" for subject, reason in self.dropped.items()),
        )

    @contextmanager
    def told_on_error(self, logger: logging.Logger) -> Iterator[None]:
        """Say all of it before an error leaves, since who was left out may be why.

        Args:
            logger: Where to say it.

        Yields:
            Nothing.

        Raises:
            AutoSpecError: As it was raised inside.
        """
        try:
            yield
        except AutoSpecError:
            for line in self.text():  # as warnings, which are heard where a command is quiet about what goes well
                logger.warning("%s", line)
            raise

    def log(self, logger: logging.Logger) -> None:
        """Say all of it; a subject that was left out is a warning.

        Args:
            logger: Where to say it.
        """
        for line in self.lines:
            logger.info(line)
        for line in self.warnings:
            logger.warning(line)
        for subject, reason in self.dropped.items():
            logger.warning("left out: %s: %s", subject, reason)


def list_names(names: Iterable[str]) -> str:
    """The first few of many names, and how many more there are.

    Args:
        names: Names in order.

    Returns:
        Such as ``a, b and 3 more``.
    """
    names = list(names)
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
