"""Group sums of every partition of some people, and their spectra, a block of partitions at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autospec.spectra.singular import of_matrix, padded

BLOCK_NUMBERS = 1 << 22
"""So many numbers of relabelled gradients, or of factors, are held at a time: 32 MiB in float64, a few times over."""


@dataclass(frozen=True)
class PartitionSums:
    """The gradient of any set of some people, by one product with the matrix of who is in it.

    ``whole`` (k, m) float64: of all of them. Rows and columns in which everybody's gradient is zero are left out (dead
    units, constant pixels), and it may be transposed: singular values are the same but for zeros.
    ``of_sides`` (B, people) of zeros and ones → (B, k, m): of each set, in the factors' ``precision``.
    ``numbers``: how many are held for each set.
    """

    whole: Tensor
    of_sides: Callable[[Tensor], Tensor]
    precision: torch.dtype
    numbers: int

    def spectra_of_sides(self, side: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """(P, width) each: the singular values of P sets of people (P, people), and of those who are not in them.

        Only the set of fewer people is summed, in the precision of the factors as the recorder sums groups; the
        others' is what is left of the whole in float64, so that it is not further off than the smaller one.
        """
        first = 2 * int(side[0].sum()) <= side.shape[1]
        parts = [self._spectra(block) for block in (side if first else 1 - side).split(self._at_once)]
        few, many = (padded(torch.cat(found), width) for found in zip(*parts, strict=True))
        return (few, many) if first else (many, few)

    def spectra_of(self, side: Tensor, width: int) -> Tensor:
        """(P, width): the singular values of P sets of people (P, people)."""
        sums = (self.of_sides(block).double() for block in side.to(self.precision).split(self._at_once))
        return padded(torch.cat([of_matrix(found, self.precision) for found in sums]), width)

    def _spectra(self, side: Tensor) -> tuple[Tensor, Tensor]:
        sums = self.of_sides(side.to(self.precision)).double()
        few = of_matrix(sums, self.precision)
        return few, of_matrix(torch.sub(self.whole, sums, out=sums), self.precision)

    @property
    def _at_once(self) -> int:
        return max(1, BLOCK_NUMBERS // max(self.numbers, 1))


def of_gradients(gradients: Tensor) -> PartitionSums:
    """The sums of people's gradients (people, out, in)."""
    rows, columns = ((gradients != 0).flatten(1).any(0).unflatten(0, gradients.shape[1:]).any(side) for side in (1, 0))
    if not (rows.all() and columns.all()):
        gradients = gradients[:, rows][:, :, columns]
    people, *shape = gradients.shape
    flat = gradients.flatten(1)
    whole = torch.ones(1, people, dtype=torch.float64, device=flat.device) @ flat.double()
    return PartitionSums(
        whole.unflatten(1, shape)[0], lambda side: (side @ flat).unflatten(1, shape), flat.dtype, flat.shape[1]
    )


def of_rows(adjoint: Tensor, activation: Tensor, person: Tensor) -> PartitionSums:
    """The sums of ``δ aᵀ`` over rows: ``adjoint`` (rows, out), ``activation`` (rows, in), and whose each row is.

    Each set's rows are brought together and multiplied, the shorter factor with the longer; nobody's gradient is
    formed.
    """
    short, long = (factor[:, (factor != 0).any(0)] for factor in (adjoint, activation))
    if short.shape[1] > long.shape[1]:
        short, long = long, short
    together = torch.empty_like(long)  # one place in the processor's cache for all sets

    def of_sides(side: Tensor) -> Tensor:
        sums = long.new_empty(len(side), short.shape[1], long.shape[1])
        is_in = side[:, person] > 0
        rows_of_sets = is_in.nonzero()[:, 1].split(is_in.sum(1).tolist())
        for of_set, rows in zip(sums, rows_of_sets, strict=True):
            torch.index_select(long, 0, rows, out=together[: len(rows)])
            torch.mm(short[rows].mT, together[: len(rows)], out=of_set)
        return sums

    return PartitionSums(short.double().mT @ long.double(), of_sides, short.dtype, short.shape[1] * long.shape[1])
