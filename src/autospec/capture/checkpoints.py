"""Activation checkpoints, where a forward pass is split by group."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch.utils.checkpoint import CheckpointError

from autospec.errors import AutoSpecError


@contextlib.contextmanager
def name_checkpoints(engine: str) -> Iterator[None]:
    """A context in which a checkpoint that cannot be computed again within a split pass is one line of ours.

    Raises:
        AutoSpecError: in place of torch's error.
    """
    try:
        yield
    except CheckpointError as error:
        raise AutoSpecError(
            "a checkpoint (torch.utils.checkpoint) saved other tensors when it was computed again, as those within "
            f"other checkpoints do where a pass is split by group (engine={engine!r}); use engine='hooks'"
        ) from error
