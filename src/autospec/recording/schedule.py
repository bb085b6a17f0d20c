"""When spectra are taken."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

from autospec.errors import AutoSpecError


@dataclass(frozen=True)
class Schedule:
    """Every k-th epoch, counted from 0, and the last where the number of epochs is known."""

    every: int = 1
    epochs: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("every", self.every), ("epochs", self.epochs)):
            if name == "epochs" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise AutoSpecError(f"{name}={value!r}: must be 1 or more, a whole number")

    def takes(self, epoch: int) -> bool:
        """Whether spectra are taken at an epoch."""
        return epoch % self.every == 0 or (self.epochs is not None and epoch == self.epochs - 1)
