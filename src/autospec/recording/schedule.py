"""When spectra are taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Every k-th epoch, counted from 0, and the last where the number of epochs is known."""

    every: int = 1
    epochs: int | None = None

    def takes(self, epoch: int) -> bool:
        """Whether spectra are taken at an epoch."""
        return epoch % self.every == 0 or (self.epochs is not None and epoch == self.epochs - 1)
