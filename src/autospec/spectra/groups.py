"""Which samples of a batch belong to which group; sums over groups that contain one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from autospec.errors import AutoSpecError
from autospec.store.schema import ALL, UNGROUPED, is_text


@dataclass(frozen=True)
class Grouping:
    """The groups that are reported, as sums of disjoint cells.

    Cells are the disjoint groups in their order and, last, the samples of no group. Reported are ``all``,
    the disjoint groups, then margins; ``members`` (reported, cells) says which cells make up which.
    """

    names: tuple[str, ...]
    members: Tensor
    margins: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        return self.members.shape[1]

    @property
    def disjoint(self) -> int:
        """The number of disjoint groups: every cell but the last."""
        return self.cells - 1

    @property
    def reported(self) -> int:
        return self.members.shape[0]

    @cached_property
    def no_rows(self) -> Tensor:
        """(cells,) int64: what counts of rows begin with; never changed."""
        return torch.zeros(self.cells, dtype=torch.int64)

    @cached_property
    def no_norms(self) -> Tensor:
        """(2, cells) float64: what sums of two squared norms begin with; never changed."""
        return torch.zeros(2, self.cells, dtype=torch.float64)

    def sums(self, per_cell: Tensor) -> Tensor:
        """Sums over each reported group's cells: (cells, ...) → (reported, ...)."""
        members = self.members.to(per_cell)
        flat = per_cell.reshape(self.cells, -1)
        sums = members @ flat
        # a NaN of one cell must not reach the groups it is no part of, as 0 · NaN does
        if per_cell.is_floating_point() and not sums.sum().isfinite():
            zero = flat.new_zeros(())
            sums = torch.stack([flat.where(row[:, None] > 0, zero).sum(0) for row in members])
        return sums.reshape(self.reported, *per_cell.shape[1:])


Rows = slice | Tensor
"""The samples of a cell: a stretch of the batch, or their places in it."""


@dataclass(frozen=True)
class SampleGroups:
    """The samples of one batch, cell by cell: ``samples[c]`` are the positions in the batch of cell ``c``.

    ``shared`` marks a single row that stands for all samples together: it counts in ``all``, and what it is made
    of cannot be told. ``weight`` (n,) is what each sample's loss is multiplied by, where the user said so.
    """

    samples: tuple[Tensor, ...]
    of_sample: Tensor
    shared: bool = False
    weight: Tensor | None = None

    @classmethod
    def of(cls, labels: Tensor, cells: int) -> SampleGroups:
        """Sort the labels of a batch, (n,) with -1 for "in no group", into ``cells`` cells (the last for -1)."""
        of_sample = labels.where(labels >= 0, cells - 1)
        counts = torch.bincount(of_sample, minlength=cells).tolist()
        order = torch.argsort(of_sample, stable=True)
        return cls(tuple(order.split(counts)), of_sample)

    def of_all(self, rows: int = 1) -> SampleGroups:
        """The groups of rows that samples of the batch share: in no group, so in ``all`` only."""
        apart = SampleGroups.of(self.of_sample.new_full((rows,), UNGROUPED), len(self.samples))
        return replace(apart, shared=True)

    def of_rows(self, owners: Tensor) -> SampleGroups:
        """The groups of rows, (rows,) each of the sample that ``owners`` names; -1 is nobody's, in no group."""
        group = self.of_sample[owners.clamp_min(0)].where(owners >= 0, UNGROUPED)
        return SampleGroups.of(group, len(self.samples))

    @cached_property
    def counts(self) -> list[int]:
        return [len(samples) for samples in self.samples]

    @cached_property
    def rows(self) -> list[Rows | None]:
        """The samples of every cell, as a stretch of the batch where they are one; None for an empty cell."""
        return [_stretch(samples) if len(samples) else None for samples in self.samples]

    @cached_property
    def order(self) -> Tensor:
        """(n,) the samples of all cells, one cell after the other."""
        return torch.cat(self.samples)

    @cached_property
    def places(self) -> Tensor | None:
        """(n,) where each sample stands in ``order``; None for the same place."""
        places = torch.argsort(self.order)
        is_kept = places.device.type == "cpu" and bool((places[1:] > places[:-1]).all())  # a GPU is not asked
        return None if is_kept else places

    def sums(self, per_sample: Tensor) -> Tensor:
        """Sums over each cell's samples: (n, ...) → (cells, ...), in float64 for real numbers."""
        precise = per_sample.double() if per_sample.is_floating_point() else per_sample
        zeros = precise.new_zeros((len(self.samples), *precise.shape[1:]))
        return zeros.index_add_(0, self.of_sample, precise)


def _stretch(samples: Tensor) -> Rows:
    """Places in the batch as a slice where they are one, which a GPU is not asked for."""
    first = int(samples[0]) if samples.device.type == "cpu" else -1
    is_one = first >= 0 and int(samples[-1]) - first + 1 == len(samples)
    return slice(first, first + len(samples)) if is_one else samples


def grouping(names: tuple[str, ...], margins: dict[str, tuple[str, ...]]) -> Grouping:
    """The grouping of disjoint groups ``names`` with margins that are sums of some of them."""
    cells = len(names) + 1
    rows = [torch.ones(cells, dtype=torch.int64)]
    rows += list(torch.eye(len(names), cells, dtype=torch.int64))
    rows += [torch.tensor([int(name in parts) for name in names] + [0]) for parts in margins.values()]
    return Grouping(("all", *names, *margins), torch.stack(rows), tuple(margins))


def checked_grouping(groups: Sequence[str], margins: Mapping[str, Sequence[str]]) -> Grouping:
    """The grouping of disjoint groups and margins; AutoSpecError for names that clash or do not exist."""
    if isinstance(groups, str | set | frozenset | dict) or not isinstance(groups, Iterable):
        raise AutoSpecError(f"groups={groups!r}: a list of at least one group name is needed, such as ['HC', 'SZ']")
    groups = list(groups)
    if not groups:
        raise AutoSpecError(f"groups={groups!r}: a list of at least one group name is needed, such as ['HC', 'SZ']")
    if not isinstance(margins, Mapping):
        raise AutoSpecError(f"margins={margins!r}: must be a dict of lists of groups")
    names = [*groups, *margins]
    for name in names:
        if not isinstance(name, str) or name == ALL or names.count(name) > 1:
            raise AutoSpecError(f"groups: {name!r} is not a distinct name ({ALL!r} is reserved for the whole batch)")
        if not name.strip() or "\0" in name or not is_text(name):
            raise AutoSpecError(f"groups: {name!r} is no name: it must have letters, and be text that a file can hold")
    for margin, parts in margins.items():
        if isinstance(parts, str) or not parts:
            raise AutoSpecError(f"margins: {margin!r}: {parts!r} must be a list of at least one group")
        unknown = [part for part in parts if part not in groups]
        if unknown:
            raise AutoSpecError(f"margins: {margin!r} names {unknown[0]!r}, which is no group ({', '.join(groups)})")
    return grouping(tuple(groups), {margin: tuple(parts) for margin, parts in margins.items()})
