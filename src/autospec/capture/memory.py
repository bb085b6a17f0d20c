"""Memory that is used again: fresh memory for every batch costs more than what is copied into it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_holders = getattr(torch._C, "_storage_Use_Count", None)
"""Says how many hold a tensor's memory; a torch without it gives fresh memory every time."""


class Pool:
    """Empty tensors on the CPU, in memory that is given out again once nobody but the pool holds it."""

    def __init__(self) -> None:
        self._free: dict[tuple[tuple[int, ...], torch.dtype], list[tuple[Tensor, int]]] = {}

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """A tensor of some shape, of the type and on the device of another."""
        if _holders is None or like.device.type != "cpu":
            return like.new_empty(shape)
        held = self._free.setdefault((tuple(shape), like.dtype), [])
        for tensor, alone in held:
            if _count(tensor) == alone:
                return tensor.detach()
        tensor = torch.empty(shape, dtype=like.dtype)
        held.append((tensor, _count(tensor)))
        return tensor.detach()


class Scratch:
    """One stretch of memory, written over by every next use, so that it stays in the processor's cache."""

    def __init__(self) -> None:
        self._numbers = torch.empty(0)

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """A tensor of some shape, of the type and on the device of another; the one before is lost."""
        size = math.prod(shape)
        kept = self._numbers
        if kept.numel() < size or kept.dtype != like.dtype or kept.device != like.device:
            kept = self._numbers = like.new_empty(size)
        return kept[:size].view(tuple(shape))


def _count(tensor: Tensor) -> int:
    assert _holders is not None
    return int(_holders(tensor.untyped_storage()._cdata))
