"""Activations that do not change from one record to the next, as the first layer's in full-batch training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import SampleGroups
from autospec.spectra.rows import RowStack

MISSES = 2
"""So often may an activation that lay where the last one did be another one, before it is no longer looked at."""


@dataclass
class _Remembered:
    """One layer's activation at the last record: where it lay and, once it lay there twice, what it was and gave."""

    place: tuple[Any, ...]
    misses: int = 0
    value: Tensor | None = None
    of_sample: Tensor | None = None
    stack: RowStack | None = None


class ConstantRows:
    """The sums of activations, by layer, for as long as they stay the same to the last bit.

    Equal content decides, since memory is used again and can be written past torch's version counter. An activation
    is copied only where one of the same shape lay at the same address a record before.
    """

    def __init__(self) -> None:
        self._layers: dict[str, _Remembered] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> ConstantRows:
        return self  # what is kept of sums to be put back needs no copies of inputs

    def recall(self, layer: str, factors: GradientFactors, cells: SampleGroups) -> RowStack | None:
        """The sums of the same rows of the same groups, or None."""
        entry = self._layers.get(layer)
        if entry is None or entry.value is None or entry.of_sample is None or entry.place != _place(factors):
            return None
        if torch.equal(entry.value, factors.stored[0]) and torch.equal(entry.of_sample, cells.of_sample):
            return entry.stack.lent() if entry.stack is not None else None
        entry.misses += 1
        entry.value = entry.stack = None
        return None

    def remember(self, layer: str, factors: GradientFactors, cells: SampleGroups, stack: RowStack) -> None:
        """Remember what was summed of a record's first rows, if they may come again."""
        entry = self._layers.setdefault(layer, _Remembered(()))
        if entry.misses >= MISSES:
            return
        if entry.place == _place(factors):
            entry.value, entry.of_sample = factors.stored[0].clone(), cells.of_sample.clone()
            entry.stack = stack.copied()
        else:
            entry.place, entry.value, entry.stack = _place(factors), None, None


def _place(factors: GradientFactors) -> tuple[Any, ...]:
    activation = factors.stored[0]
    layout = tuple(activation.shape), activation.stride(), activation.dtype, type(factors), factors.positions
    return activation.data_ptr(), *layout
