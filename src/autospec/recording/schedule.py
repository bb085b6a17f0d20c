"""When spectra are taken."""

from __future__ import annotations

from dataclasses import dataclass

from autospec.errors import AutoSpecError


@dataclass(frozen=True)
class Schedule:
    """Every k-th epoch, counted from 0, and the last where the number of epochs is known."""

    every: int = 1
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise AutoSpecError(f"every={self.every}: must be 1 or more")

    def takes(self, epoch: int) -> bool:
        """Whether spectra are taken at an epoch."""
        return epoch % self.every == 0 or (self.epochs is not None and epoch == self.epochs - 1)
