"""Losses and metrics of an epoch that several processes tell: their means, over as few messages as go."""

from __future__ import annotations

from collections.abc import Sequence

from autospec.errors import AutoSpecError
from autospec.recording.processes import Processes

Curve = tuple[float | None, float | None, float | None, float | None]
"""Loss, metric, validation loss and validation metric of an epoch, each where it is told."""


class JointCurves:
    """Joins what is told of epochs: at records along with the sums; between them only where anybody tells anything.

    Whether anybody does is known from the record before: a message that one process sends and no other waits for would
    be taken for the next one.
    """

    def __init__(self) -> None:
        self._are_told = True

    def at_record(self, curves: Sequence[Curve]) -> Curve:
        """The means of what was told at a record."""
        self._are_told = any(value is not None for curve in curves for value in curve)
        return _means(curves)

    def between(self, curve: Curve, processes: Processes) -> Curve:
        """The means of what is told at an epoch at which no spectra are taken.

        Raises:
            AutoSpecError: where this process tells something, and none told anything at the record before.
        """
        if self._are_told:
            return _means(processes.gather(curve, "curves"))
        if any(value is not None for value in curve):
            raise AutoSpecError(
                "a loss or metric is told at an epoch without spectra, and none was told by any process at the record "
                "before, so that the others do not wait for it; tell one at every epoch, or at recorded epochs alone"
            )
        return curve


def _means(curves: Sequence[Curve]) -> Curve:
    """The mean of each value over the processes that have it; None where none has."""
    columns = [[value for value in column if value is not None] for column in zip(*curves, strict=True)]
    loss, metric, validation_loss, validation_metric = (sum(c) / len(c) if c else None for c in columns)
    return loss, metric, validation_loss, validation_metric
