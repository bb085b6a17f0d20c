"""How the rows of a layer's factors belong to the samples of a batch."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autospec.capture.rules.embedding import EmbeddingFactors
from autospec.spectra.factors import GradientFactors

NOBODY, MIXED = -1, -2
"""Instead of a sample: a row without a gradient, and one that several samples share."""

SAMPLE_FIRST, STEP_FIRST, FOLDED, BY_DATA = "sample first", "step first", "folded", "by data"
SHARED, NOT_REACHED = "shared", "not reached"


@dataclass(frozen=True)
class RowLayout:
    """Rows that alternate between samples as their shape says: row ``r`` is of sample ``(r // inner) % samples``.

    ``r`` counts the rows of factors of shape (first, positions) in order.
    """

    samples: int
    first: int
    positions: int
    inner: int

    @property
    def outer(self) -> int:
        return self.first * self.positions // (self.samples * self.inner)

    @property
    def along_first(self) -> bool:
        """Whether all positions of one index of the first dimension are of one sample."""
        return self.inner % self.positions == 0

    @property
    def along_positions(self) -> bool:
        """Whether a position is of the same sample at every index of the first dimension."""
        return self.positions % (self.samples * self.inner) == 0

    @property
    def how(self) -> str:
        """The layout in words."""
        if self.along_first and self.first == self.samples:
            return SAMPLE_FIRST
        return STEP_FIRST if self.along_positions and self.positions == self.samples else FOLDED

    def owners(self, device: torch.device | None = None) -> Tensor:
        """(first, positions): the sample that each row belongs to."""
        rows = torch.arange(self.first * self.positions, device=device)
        return (rows // self.inner % self.samples).view(self.first, self.positions)

    def for_batch(self, samples: int, first: int, positions: int) -> RowLayout | None:
        """The same layout at other lengths; None where it does not follow from this one."""
        if (samples, first, positions) == (self.samples, self.first, self.positions):
            return self
        if self.along_first:
            repeats = self.inner // self.positions
            inner = _repeats(samples, first, repeats, self.outer)
            return None if inner is None else RowLayout(samples, first, positions, inner * positions)
        if self.along_positions:
            outer = self.positions // (self.samples * self.inner)
            inner = _repeats(samples, positions, self.inner, outer)
            return None if inner is None else RowLayout(samples, first, positions, inner)
        return None


def _repeats(samples: int, length: int, inner: int, outer: int) -> int | None:
    """How often in a row a sample comes in a dimension of another length, where at most one of the repeats moves."""
    if length == samples * inner * outer:
        return inner
    if length % samples or not samples or (inner == 1) == (outer == 1):
        return None
    return length // samples if outer == 1 else 1


@dataclass(frozen=True)
class RowTrace:
    """Whose the rows of one part of a layer's factors are.

    Attributes:
        how: one of the words above, as the user reads it.
        layout: where the rows follow from shapes.
        owners: (first, positions) sample of each row where they do not; ``NOBODY`` for rows without a gradient.
        proven: whether the rows of this batch leave no other layout.
        axes: which dimensions of the layer's output are the first dimension and the positions, where it is known.
    """

    how: str
    layout: RowLayout | None = None
    owners: Tensor | None = None
    proven: bool = True
    axes: str | None = None


def trace_of(owners: Tensor, samples: int) -> RowTrace:
    """Whose rows are, from the sample of each row, (first, positions), as far as its adjoint tells it."""
    if (owners == MIXED).any():
        return RowTrace(SHARED)
    if (owners == NOBODY).all():
        return RowTrace(NOT_REACHED, proven=False)
    fitting = [layout for layout in _layouts(samples, *owners.shape) if _fits(layout, owners)]
    straight = [layout for layout in fitting if layout.along_first or layout.along_positions]
    chosen = straight or fitting
    if not chosen:
        return RowTrace(BY_DATA, owners=owners)
    return RowTrace(chosen[0].how, chosen[0], proven=len(chosen) == 1)


def differs(earlier: RowTrace, fresh: RowTrace | None, samples: int) -> bool:
    """Whether rows that were taken by what was traced earlier are seen to be other samples' now."""
    if earlier.layout is None or fresh is None or fresh.how == NOT_REACHED or not fresh.proven:
        return False
    if fresh.how == SHARED:
        return True
    owners = fresh.owners if fresh.layout is None else fresh.layout.owners()
    assert owners is not None
    layout = earlier.layout.for_batch(samples, *owners.shape)
    return layout is None or not _fits(layout, owners)


def _layouts(samples: int, first: int, positions: int) -> list[RowLayout]:
    """Every layout of rows of a shape, those along whole dimensions first, samples before what repeats in them."""
    rows = first * positions
    if rows % samples:
        return []
    inner = [length for length in range(rows // samples, 0, -1) if rows // samples % length == 0]
    layouts = [RowLayout(samples, first, positions, length) for length in inner]
    return sorted(layouts, key=lambda layout: (not layout.along_first, not layout.along_positions))


def _fits(layout: RowLayout, owners: Tensor) -> bool:
    return bool(((layout.owners(owners.device) == owners) | (owners == NOBODY)).all())


def adjoint_rows(factors: GradientFactors) -> Tensor:
    """(first, positions, width): the adjoint as far as its rows can be taken apart; whole samples of a convolution."""
    if is_separable(factors):
        adjoint = factors.stored[1]
        return adjoint.movedim(0, 2).flatten(2) if adjoint.dim() == 4 else adjoint
    adjoint = factors.stored[1]
    adjoint = adjoint if len(adjoint) == factors.samples else factors.adjoint.transpose(0, 1)
    return adjoint.reshape(factors.samples, 1, -1)


def is_separable(factors: GradientFactors) -> bool:
    """Whether each position of the factors can be taken out."""
    return type(factors) is GradientFactors or type(factors) is EmbeddingFactors


def by_sample(factors: GradientFactors, trace: RowTrace) -> tuple[GradientFactors, Tensor | None]:
    """Factors whose first dimension is of one sample each, and of which: (first,), or None for all, in order."""
    if trace.layout is not None:
        return _regular(factors, trace.layout)
    assert trace.owners is not None
    owners = trace.owners
    of_first = _common(owners)
    if of_first is not None:
        return factors, of_first
    of_position = _common(owners.T)
    first, positions = owners.shape
    if of_position is not None:
        return _rearranged(factors, RowLayout(positions, first, positions, 1)), of_position
    return _rearranged(factors, RowLayout(first * positions, first, positions, 1)), owners.flatten()


def _regular(factors: GradientFactors, layout: RowLayout) -> tuple[GradientFactors, Tensor | None]:
    if layout.how == SAMPLE_FIRST:
        return factors, None
    if layout.along_first:
        return factors, layout.owners(factors.device)[:, 0]
    return _rearranged(factors, layout), None


def _common(owners: Tensor) -> Tensor | None:
    """(first,): the one sample of all positions with a gradient, or None where there are several."""
    largest = owners.amax(1)
    return largest if ((owners == largest[:, None]) | (owners == NOBODY)).all() else None


def _rearranged(factors: GradientFactors, layout: RowLayout) -> GradientFactors:
    """The same rows with the samples of a layout as the first dimension."""
    other = copy.copy(factors)
    start = 1 if factors.stored[0].dim() == 4 else 0
    other.stored = (_moved(factors.stored[0], layout, start), _moved(factors.stored[1], layout, start))
    if isinstance(other, EmbeddingFactors):
        other.present = _moved(other.present, layout)
        other._row_counts = other.present.sum(1)
    elif factors._row_counts is not None:
        present = torch.arange(layout.positions, device=factors.device) < factors._row_counts[:, None]
        other._row_counts = _moved(present, layout).sum(1)
    return other


def _moved(tensor: Tensor, layout: RowLayout, start: int = 0) -> Tensor:
    """(..., first, positions, ...) → (..., samples, positions of each, ...)."""
    rows = tensor.flatten(start, start + 1).unflatten(start, (layout.outer, layout.samples, layout.inner))
    return rows.transpose(start, start + 1).flatten(start + 1, start + 2).contiguous()


def with_axes(trace: RowTrace, axes: str | None) -> RowTrace:
    """The trace, knowing which dimensions of the output its rows are."""
    return replace(trace, axes=axes)
