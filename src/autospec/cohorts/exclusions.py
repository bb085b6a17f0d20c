"""The account of a cohort: who was found, who was left out and why."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

NAMED_AT_MOST = 6


@dataclass
class Account:
    """What was found, joined and left out, line by line; nobody leaves a cohort without a line here."""

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)

    def note(self, line: str) -> None:
        """Add a line."""
        self.lines.append(line)

    def warn(self, line: str) -> None:
        """Add a line that a reader must not miss."""
        self.warnings.append(line)

    def drop(self, subject: str, reason: str) -> None:
        """Leave a subject out; the first reason stands."""
        self.dropped.setdefault(subject, reason)

    def text(self) -> tuple[str, ...]:
        """Every line, warnings after the others and the subjects that were left out last."""
        return (
            *self.lines,
            *self.warnings,
            *(f"left out: {subject}: {reason}" for subject, reason in self.dropped.items()),
        )

    def log(self, logger: logging.Logger) -> None:
        """Say all of it; a subject that was left out is a warning."""
        for line in self.lines:
            logger.info(line)
        for line in self.warnings:
            logger.warning(line)
        for subject, reason in self.dropped.items():
            logger.warning("left out: %s: %s", subject, reason)


def list_names(names: Iterable[str]) -> str:
    """The first few of many names, and how many more there are."""
    names = list(names)
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
