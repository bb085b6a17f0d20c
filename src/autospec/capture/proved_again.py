"""When what was proved on a first batch is proved again: values may do later what shapes do not show."""

from __future__ import annotations

from torch import nn

from autospec.capture.pieces import own_piece


def is_due(batch: int, every: int | None = None) -> bool:
    """Whether a batch, counted from 1, is one to prove on: the 1st, 2nd, 4th, 8th, ..., or every so many."""
    return (batch - 1) % every == 0 if every else batch & (batch - 1) == 0


def has_diverged(model: nn.Module) -> bool:
    """Whether a weight is not finite, so that no comparison tells anything."""
    return any(not bool(own_piece(parameter).isfinite().all()) for parameter in model.parameters())
