"""Which tensors travel in one message: every message costs time, and so does every copy into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

AT_ONCE = 2**16
"""So many numbers of small tensors travel in one message: 512 KiB of float64. Larger ones travel alone, uncopied."""

PACKED = 2**18
"""So many numbers for one process are copied into one message: a message costs as much as a copy of them."""

FEW = 4
"""What one of so many processes needs, the others send straight to it: it has room for all of theirs."""


def messages_of(tensors: Sequence[Tensor], at_once: int = AT_ONCE) -> Iterator[list[int]]:
    """The places of tensors that travel together: few numbers of one dtype, or one tensor of many."""
    by_dtype: dict[torch.dtype, list[int]] = {}
    for place, tensor in enumerate(tensors):
        if tensor.numel() > at_once:
            yield [place]
            continue
        waiting = by_dtype.setdefault(sent_as(tensor), [])
        if waiting and sum(tensors[other].numel() for other in waiting) + tensor.numel() > at_once:
            yield waiting
            waiting = by_dtype[sent_as(tensor)] = []
        waiting.append(place)
    yield from (places for places in by_dtype.values() if places)


def sent_as(tensor: Tensor) -> torch.dtype:
    """The dtype in which small tensors travel: counts along with numbers in float64."""
    return tensor.dtype if tensor.is_floating_point() else torch.float64
