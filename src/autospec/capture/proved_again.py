"""When what was proved on a first batch is proved again: values may do later what shapes do not show."""

from __future__ import annotations

from torch import nn

COST = 0.01
"""The part of a run that proofs after the first may take, where a pass of a proof counts as a batch."""

SPLIT_PASSES = TRACE_PASSES = 4
"""How many passes, forward and backward, it takes at most to prove that a model may be split, or fused."""


def is_due(batch: int, passes: int, is_steady: bool, every: int | None = None) -> bool:
    """Whether a batch, counted from 1, is one to prove on.

    Args:
        batch: which of its kind it is.
        passes: how many passes a proof takes.
        is_steady: whether the graph leaves nothing for values to change; elsewhere the 2nd, 4th, 8th, ... are too.
        every: prove at every so many instead.
    """
    if every is None and not is_steady and batch & (batch - 1) == 0:
        return True
    return (batch - 1) % (every or round(passes / COST)) == 0


def has_diverged(model: nn.Module) -> bool:
    """Whether a weight is not finite, so that no comparison tells anything."""
    return any(not bool(parameter.isfinite().all()) for parameter in model.parameters())
