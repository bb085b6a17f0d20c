"""Where the samples of a batch lie in what goes into a call and in what comes out of it: tried, then compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from autospec.capture.agreement import difference
from autospec.capture.memory import Pool, Scratch
from autospec.errors import AutoSpecError
from autospec.spectra.groups import Rows, SampleGroups

IGNORED = -100
"""The label that losses leave out, in torch and in Transformers."""
MOST_TRIALS = 16
"""So many ways to tell samples in the inputs are tried."""


@dataclass(frozen=True)
class LossShare:
    """What a group's share of a loss is: of its samples, or of the labels of one input that are not ignored.

    ``kind`` is "mean" (share of the samples), "sum" (1), "labels" or "next labels" (without the first of each sample),
    or "weight" (share of what ``recorder.batch(weight=...)`` says of each sample).
    """

    kind: str
    leaf: int = -1

    def of(self, leaves: Sequence[Any], dimensions: Sequence[int | None], cells: SampleGroups) -> list[float]:
        """The share of every cell that is not empty."""
        counts = [count for count in cells.counts if count]
        if self.kind == "sum":
            return [1.0] * len(counts)
        if self.kind == "mean":
            return [count / sum(counts) for count in counts]
        if self.kind == "weight":
            if cells.weight is None:
                raise AutoSpecError(
                    "an earlier batch's loss was split by recorder.batch(..., weight=...), which this one lacks; give "
                    "the weight of every batch"
                )
            total = float(cells.weight.sum())
            return [float(cells.weight[samples].sum()) / total for samples in cells.samples if len(samples)]
        labels = leaves[self.leaf].movedim(dimensions[self.leaf], 0)
        labels = labels[:, 1:] if self.kind == "next labels" else labels
        kept = (labels.flatten(1) != IGNORED).sum(1).cpu() if labels.dim() > 1 else (labels != IGNORED).cpu()
        sums = [int(kept[samples.cpu()].sum()) for samples in cells.samples if len(samples)]
        return [part / max(sum(sums), 1) for part in sums]


OutputPlace = int | None | tuple[LossShare, ...]
"""The dimension of the samples; None for what is the same for all; for a loss, the shares that explain its value."""


@dataclass(frozen=True)
class BatchLayout:
    """The dimension of the samples in every leaf of the arguments, None for none, and the places of the outputs."""

    inputs: tuple[int | None, ...]
    outputs: tuple[OutputPlace, ...] = ()

    def of_cell(self, leaves: Sequence[Any], rows: Rows, pool: Pool) -> list[Any]:
        """The leaves of the arguments for the samples of one cell."""
        return [
            leaf if dimension is None else taken(leaf, dimension, rows, pool)
            for leaf, dimension in zip(leaves, self.inputs, strict=True)
        ]

    def joined(
        self, parts: Sequence[Sequence[Any]], leaves: Sequence[Any], cells: SampleGroups, pool: Pool
    ) -> list[Any] | None:
        """The leaves of the whole batch's output from those of the cells; None where this layout does not tell them.

        It does not where the shares that explained a loss so far come apart, or where shapes do not fit.
        """
        if len({len(part) for part in parts}) != 1 or len(parts[0]) != len(self.outputs):
            return None
        found = []
        for pieces, place in zip(zip(*parts, strict=True), self.outputs, strict=True):
            if place is None or not isinstance(pieces[0], Tensor):
                found.append(pieces[0])
            elif isinstance(place, int):
                if not _fit(pieces, place, cells):
                    return None
                found.append(Together.apply(cells, pool, place, *pieces))
            else:
                shares = [share.of(leaves, self.inputs, cells) for share in place]
                if any(other != shares[0] for other in shares[1:]):
                    return None
                found.append(_weighted(pieces, shares[0]))
        return found

    def by_nearest_share(self) -> BatchLayout:
        """This layout with the one share that comes nearest to a loss, where others that come near differ from it."""
        return replace(self, outputs=tuple(place[:1] if isinstance(place, tuple) else place for place in self.outputs))

    def explained(
        self,
        parts: Sequence[Sequence[Any]],
        whole: Sequence[Any],
        leaves: Sequence[Any],
        cells: SampleGroups,
        near: float,
    ) -> tuple[BatchLayout, float]:
        """This layout with the places of the outputs at which the parts come nearest to the whole, and how near.

        ``near`` is the difference up to which two values are the same.
        """
        if any(len(part) != len(whole) for part in parts):
            return self, float("inf")
        places: list[OutputPlace] = []
        farthest = 0.0
        for pieces, expected in zip(zip(*parts, strict=True), whole, strict=True):
            place, apart = self._place(pieces, expected, leaves, cells, near)
            places.append(place)
            farthest = max(farthest, apart)
        return replace(self, outputs=tuple(places)), farthest

    def _place(
        self, pieces: Sequence[Any], expected: Any, leaves: Sequence[Any], cells: SampleGroups, near: float
    ) -> tuple[OutputPlace, float]:
        if not isinstance(expected, Tensor):
            return None, 0.0
        best: tuple[OutputPlace, float] = (None, float("inf"))
        for dimension in (d for d, size in enumerate(expected.shape) if size == len(cells.of_sample)):
            if _fit(pieces, dimension, cells):
                apart = difference(Together.apply(cells, Pool(), dimension, *pieces), expected)
                best = min(best, (dimension, apart), key=lambda found: found[1])
        if best[1] > near and all(piece.shape == expected.shape for piece in pieces):
            best = min(best, (None, max(difference(piece, expected) for piece in pieces)), key=lambda found: found[1])
        if best[1] > near and expected.is_floating_point() and expected.numel() == 1:
            apart_by = {
                share: self._loss_apart(share, pieces, expected, leaves, cells) for share in self._shares(leaves, cells)
            }
            nearest = min(apart_by.values())
            if nearest < best[1]:
                by_distance = sorted(apart_by, key=apart_by.__getitem__)
                best = tuple(share for share in by_distance if apart_by[share] <= max(near, nearest)), nearest
        return best

    def _loss_apart(
        self, share: LossShare, pieces: Sequence[Tensor], expected: Tensor, leaves: Sequence[Any], cells: SampleGroups
    ) -> float:
        return difference(_weighted(pieces, share.of(leaves, self.inputs, cells)), expected)

    def _shares(self, leaves: Sequence[Any], cells: SampleGroups) -> Iterator[LossShare]:
        yield from (LossShare("mean"), LossShare("sum"))
        if cells.weight is not None:
            yield LossShare("weight")
        for place, (leaf, dimension) in enumerate(zip(leaves, self.inputs, strict=True)):
            if dimension is not None and not leaf.is_floating_point() and leaf.dtype != torch.bool:
                yield LossShare("labels", place)
                if leaf.dim() > 1:
                    yield LossShare("next labels", place)


def input_layouts(leaves: Sequence[Any], samples: int) -> Iterator[BatchLayout]:
    """The ways in which a batch's samples may lie in the arguments of a call, the likeliest first; none for none."""
    choices = [_dimensions(leaf, samples) for leaf in leaves]
    if all(choice == (None,) for choice in choices):
        return
    ranked = itertools.product(*(range(len(choice)) for choice in choices))
    likeliest = sorted(itertools.islice(ranked, 4096), key=sum)[:MOST_TRIALS]
    for places in likeliest:
        inputs = tuple(choice[place] for choice, place in zip(choices, places, strict=True))
        if any(dimension is not None for dimension in inputs):
            yield BatchLayout(inputs)


def sample_dimensions(leaves: Sequence[Any], samples: int) -> tuple[tuple[int | None, ...], ...]:
    """For every leaf, the dimensions that are as long as the batch: what a layout depends on beside the structure."""
    return tuple(_dimensions(leaf, samples) for leaf in leaves)


def _dimensions(leaf: Any, samples: int) -> tuple[int | None, ...]:
    if not isinstance(leaf, Tensor):
        return (None,)
    return (*(d for d, size in enumerate(leaf.shape) if size == samples), None)


class Together(torch.autograd.Function):
    """The pieces of the cells as one tensor in the batch's order; each gets its own part of the adjoint."""

    @staticmethod
    def forward(ctx: Any, cells: SampleGroups, pool: Pool, dimension: int, *pieces: Tensor) -> Tensor:
        ctx.cells, ctx.pool, ctx.dimension = cells, pool, dimension
        shape = list(pieces[0].shape)
        shape[dimension] = len(cells.of_sample)
        # two copies of whole samples: one by places (index_copy_) goes number by number
        whole = torch.cat(pieces, dimension, out=pool.empty(shape, pieces[0]))
        if cells.places is None:
            return whole
        return torch.index_select(whole, dimension, cells.places.to(whole.device), out=pool.empty(shape, whole))

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Any, ...]:
        filled = [rows for rows in ctx.cells.rows if rows is not None]
        parts = [
            taken(adjoint, ctx.dimension, rows, ctx.pool) if needed else None
            for rows, needed in zip(filled, ctx.needs_input_grad[3:], strict=True)
        ]
        return None, None, None, *parts


def taken(tensor: Tensor, dimension: int, rows: Rows, pool: Pool | Scratch) -> Tensor:
    """Some samples of a tensor, as a view where they are a stretch of it."""
    if isinstance(rows, slice):
        return tensor.narrow(dimension, rows.start, rows.stop - rows.start)
    rows = rows.to(tensor.device)
    if torch.is_grad_enabled() and tensor.requires_grad:
        return tensor.index_select(dimension, rows)
    shape = (*tensor.shape[:dimension], len(rows), *tensor.shape[dimension + 1 :])
    return torch.index_select(tensor, dimension, rows, out=pool.empty(shape, tensor))


AT_ONCE = 2**18
"""A tensor of up to so many numbers is put in the order of the cells at once: 1 MiB, which a cache holds."""


def cell_by_cell(tensor: Tensor, dimension: int, cells: SampleGroups, scratch: Scratch) -> Iterator[Tensor]:
    """The samples of every cell that has some, each good until the next is asked for."""
    if tensor.numel() > AT_ONCE or cells.places is None:
        yield from (taken(tensor, dimension, rows, scratch) for rows in cells.rows if rows is not None)
        return
    in_order = taken(tensor, dimension, cells.order, scratch)
    yield from (part for part in in_order.split(cells.counts, dimension) if part.shape[dimension])


def _fit(pieces: Sequence[Tensor], dimension: int, cells: SampleGroups) -> bool:
    """Whether the pieces have as many samples as their cells, and are alike in all else."""
    counts = [count for count in cells.counts if count]
    if any(not isinstance(piece, Tensor) or piece.dim() <= dimension for piece in pieces):
        return False
    others = {(*piece.shape[:dimension], *piece.shape[dimension + 1 :]) for piece in pieces}
    return len(others) == 1 and [piece.shape[dimension] for piece in pieces] == counts


def _weighted(pieces: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """A loss from those of the cells; one without a share, which may be 0 / 0, is left out."""
    terms = [share * piece for piece, share in zip(pieces, shares, strict=True) if share]
    if not terms:
        raise AutoSpecError("no sample of the batch has a share in the loss")
    return torch.stack(terms).sum(0)
