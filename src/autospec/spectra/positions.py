"""Gradient spectra along the dimension at which a weight is tied: steps of a sequence, windows of a convolution.

End of section 2.1 of the paper: the gradient of a tied weight is a sum over positions; here each position, or bin of
neighbouring ones, has its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors
from autospec.spectra.gradient import GradientSum
from autospec.spectra.groups import Grouping, SampleGroups


class PositionSums:
    """The group gradients of one weight at each position, or in each of ``bins`` stretches of positions.

    Bins split the positions as evenly as they go, in order, so that sequences of another length fill the same bins;
    without bins every batch must have the same number of positions. They add up to the weight's gradient.
    """

    def __init__(self, shape: tuple[int, int], grouping: Grouping, bins: int | None = None) -> None:
        self._shape = shape
        self._grouping = grouping
        self._bins = bins
        self._sums: list[GradientSum] = []

    def add(self, factors: GradientFactors, cells: SampleGroups) -> None:
        """Add one use of the weight in one batch."""
        bins = min(self._bins or factors.positions, factors.positions)
        if not self._sums:
            self._sums = [GradientSum(self._shape, self._grouping) for _ in range(bins)]
        if bins != len(self._sums):
            raise AutoSpecError(
                f"spectra along positions: {factors.positions} positions after {len(self._sums)}; choose bins=... "
                "for batches of unequal length"
            )
        activation, adjoint = factors.activation, factors.adjoint
        for place, part in enumerate(torch.arange(factors.positions).tensor_split(bins)):
            stretch = slice(int(part[0]), int(part[-1]) + 1)
            kept = GradientFactors(
                activation[:, :, stretch],
                adjoint[:, :, stretch],
                first_row=factors.first_row,
                transposed=factors.transposed,
            )
            self._sums[place].add(kept, cells)

    @property
    def sums(self) -> Sequence[GradientSum]:
        """The sums at each position, or in each bin; none before the first batch."""
        return self._sums

    def begun(self, positions: int) -> Sequence[GradientSum]:
        """The sums, begun for so many positions where no batch has come yet."""
        if not self._sums:
            self._sums = [GradientSum(self._shape, self._grouping) for _ in range(positions)]
        return self._sums

    def spectra(self) -> Tensor:
        """(reported, positions, min(shape)) float64: singular values at every position."""
        return torch.stack([total.spectra() for total in self._sums], dim=1)
