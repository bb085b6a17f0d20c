"""What a layer did between two records, as a statistic of one's own sees it."""

from __future__ import annotations

import torch
from torch import Tensor

from autospec.spectra.layer_sums import LayerSums
from autospec.store.schema import GRADIENT


class LayerRecord:
    """One layer between two records; every tensor is in float64, and group axes begin with ``all``.

    What of it can be used is what the statistic ``needs`` (``register_statistic``). Sums are raw, as in the file: of
    the loss as it was reduced over the batch.
    """

    def __init__(self, sums: LayerSums) -> None:
        self._sums = sums

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the reported groups: ``all``, the disjoint groups, then margins."""
        return self._sums.grouping.names

    @property
    def disjoint(self) -> slice:
        """Where the disjoint groups stand among ``groups``; they add up to all samples that have a group."""
        return slice(1, 1 + self._sums.grouping.disjoint)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight's matrix."""
        return self._sums.shape

    @property
    def row_counts(self) -> Tensor:
        """(groups,): the rows of ``A``: samples times the positions at which the weight is tied."""
        return self._sums.grouping.sums(self._sums.rows).double()

    @property
    def sample_counts(self) -> Tensor:
        """(groups,): the samples; needs ``sample_norms``."""
        return self._sums.grouping.sums(self._sums.moments.samples).double()

    @property
    def gradients(self) -> Tensor:
        """(groups, out, in): each group's part of the gradient (paper, eq. 5)."""
        return self._sums.gradient.gradients()

    def spectra(self, name: str) -> Tensor:
        """Return the singular values of the gradient, activation or adjoint, (groups, index), largest first."""
        return self._sums.gradient.spectra() if name == GRADIENT else self._sums.stacks[name].spectra()

    def gram(self, name: str) -> Tensor:
        """Return ``AᵀA`` (activation) or ``ΔᵀΔ`` (adjoint), (groups, width, width)."""
        return self._sums.stacks[name].grams()

    @property
    def row_sums(self) -> Tensor:
        """(groups, in): the sum of the rows of ``A``."""
        assert self._sums.moments.row_sums is not None
        return self._sums.grouping.sums(self._sums.moments.row_sums)

    @property
    def rows(self) -> Tensor:
        """(rows, in): every row of ``A``."""
        return self._sums.moments.rows[0]

    @property
    def row_group(self) -> Tensor:
        """(rows,): which of the disjoint groups each row is of, counted from 0; -1 for none."""
        cell = self._sums.moments.rows[1]
        return cell.where(cell < self._sums.grouping.disjoint, torch.full_like(cell, -1))

    @property
    def sample_norms(self) -> Tensor:
        """(groups,): the sum over samples of the squared norm of each one's own part of the gradient."""
        assert self._sums.moments.squared_sample_norms is not None
        return self._sums.grouping.sums(self._sums.moments.squared_sample_norms)

    @property
    def weight(self) -> Tensor:
        """(out, in): the weight now, as the optimizer left it."""
        assert self._sums.weight is not None
        return self._sums.weight.double()

    @property
    def weight_before(self) -> Tensor | None:
        """(out, in): the weight at the record before, or when recording began; None where a run no longer knows it."""
        before = self._sums.weight_before
        return None if before is None else before.to(self.weight)
