"""The sums of one layer that several processes made, joined: what each has to say of its own, and what adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from autospec.errors import AutoSpecError
from autospec.spectra.gradient import GradientSum
from autospec.spectra.layer_sums import POSITIONS, LayerSums
from autospec.spectra.rows import RowStack
from autospec.store.schema import ADJOINT, GRADIENT

NUMBERS_AT_ONCE = 2**16
"""So many numbers are added up in float64 at a time: 512 KiB, which a processor's cache holds."""

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class StackFacts:
    """The width and the blocks of stacked rows, and whether they are in float64."""

    width: int
    blocks: int
    is_float64: bool


@dataclass(frozen=True)
class LayerFacts:
    """What is known of a layer's sums beside their matrices; of several processes, joined.

    ``rows``, ``own_rows`` and ``squared_norms`` (of ``A`` and of ``Δ``) are per cell.
    """

    arrived: bool
    passes: int
    eps: float
    shared: bool
    used_elsewhere: bool
    only_gradients: bool
    has_rows: bool
    is_float64: bool
    fits_float32: bool
    positions: int
    rows: tuple[int, ...]
    own_rows: tuple[int, ...]
    squared_norms: tuple[tuple[float, ...], ...]
    unknown: dict[str, str] = field(default_factory=dict)
    stacks: dict[str, StackFacts] = field(default_factory=dict)

    @property
    def cells(self) -> Tensor:
        """The cells whose sums may differ from zero."""
        return torch.arange(len(self.rows)) if self.only_gradients else torch.tensor(self.rows).nonzero()[:, 0]


def facts_of(sums: LayerSums) -> LayerFacts:
    """What one process knows of a layer."""
    return LayerFacts(
        arrived=sums.arrived,
        passes=sums.passes,
        eps=sums.eps,
        shared=sums.shared,
        used_elsewhere=sums.used_elsewhere,
        only_gradients=sums.only_gradients,
        has_rows=sums.has_rows,
        is_float64=sums.gradient.dtype == torch.float64,
        fits_float32=all(one.fits_float32 for one in (sums.gradient, *sums.positions.sums)),
        positions=len(sums.positions.sums),
        rows=tuple(sums.rows.tolist()),
        own_rows=tuple(sums.own_rows.tolist()),
        squared_norms=tuple(map(tuple, sums.squared_norms.tolist())),
        unknown=sums.moments.unknown,
        stacks={
            name: StackFacts(stack.width, stack.blocks, stack.is_float64) for name, stack in sorted(sums.stacks.items())
        },
    )


def joined(facts: Sequence[LayerFacts], name: str) -> LayerFacts:
    """What all processes know together of a layer; AutoSpecError where its positions do not fit one another."""
    lengths = {one.positions for one in facts if one.positions}
    if len(lengths) > 1:
        raise AutoSpecError(
            f"layer {name!r}: {' and '.join(map(str, sorted(lengths)))} positions in different processes; choose "
            "bins=... for batches of unequal length"
        )
    return LayerFacts(
        arrived=any(one.arrived for one in facts),
        passes=max(one.passes for one in facts),
        eps=max(one.eps for one in facts),
        shared=any(one.shared for one in facts),
        used_elsewhere=any(one.used_elsewhere for one in facts),
        only_gradients=any(one.only_gradients for one in facts),
        has_rows=all(one.has_rows for one in facts),
        is_float64=any(one.is_float64 for one in facts),
        fits_float32=all(one.fits_float32 for one in facts),
        positions=max(lengths, default=0),
        rows=_added([one.rows for one in facts]),
        own_rows=_added([one.own_rows for one in facts]),
        squared_norms=tuple(_added(sides) for sides in zip(*(one.squared_norms for one in facts), strict=True)),
        unknown={need: reason for one in facts for need, reason in one.unknown.items()},
        stacks={stack: found for one in facts for stack, found in one.stacks.items()},
    )


def _added(of_processes: Sequence[tuple[Number, ...]]) -> tuple[Number, ...]:
    """The sums of numbers per cell, in the order of the processes."""
    return tuple(sum(numbers) for numbers in zip(*of_processes, strict=True))


class LayerJoint:
    """One layer's sums on their way: ``summands`` are added up over processes, ``triangles`` stacked.

    Args:
        sums: those of this process; replaced by those of all where ``take`` is called.
        facts: what all processes know of the layer.
        share: what the loss of one process counts in the objective, as 1 / processes where gradients are averaged.
        are_brought: whether gradients are brought to one process, which adds them up, instead of being summands.
    """

    def __init__(self, sums: LayerSums, facts: LayerFacts, share: float, are_brought: bool = False) -> None:
        self._sums, self._facts, self._share = sums, facts, share
        self._cells = facts.cells
        self._are_brought = are_brought

    @property
    def _gradients(self) -> list[GradientSum]:
        positions = self._sums.positions.begun(self._facts.positions) if self._facts.positions else []
        own = [self._sums.gradient] if GRADIENT in self._sums.keep else []
        return [*own, *positions] if POSITIONS in self._sums.keep else own

    def _stacks(self, is_float64: bool) -> list[tuple[str, StackFacts]]:
        return [(name, facts) for name, facts in sorted(self._facts.stacks.items()) if facts.is_float64 == is_float64]

    def _stack(self, name: str, facts: StackFacts) -> RowStack:
        return self._sums.stacks.get(name) or RowStack(facts.width, self._sums.grouping, facts.blocks)

    def summands(self) -> list[Tensor]:
        """What adds up beside counts and norms: the cells' gradients and Gram matrices, moments."""
        gradients = [self._known(one.matrices().mul_(self._share)) for one in self._summed]
        grams = [
            self._stack(name, facts).grams_of_cells()[self._cells] * (self._share**2 if name == ADJOINT else 1.0)
            for name, facts in self._stacks(is_float64=False)
        ]
        return [*gradients, *grams, *self._sums.moments.summands(self._sums.shape[1], self._share)]

    def is_gradient(self, place: int) -> bool:
        """Whether the summand at a place is a gradient, of which a spectrum is taken."""
        return place < len(self._summed)

    @property
    def _summed(self) -> list[GradientSum]:
        return [] if self._are_brought else self._gradients

    def brought(self) -> list[Tensor]:
        """The cells' gradients that are brought to one process, in the precision that they have in all processes."""
        dtype = torch.float32 if self._facts.fits_float32 else torch.float64
        return [self._known(one.held(dtype)) for one in self._gradients] if self._are_brought else []

    def triangles(self) -> list[Tensor]:
        """(cells, blocks, width, width) each: rows in float64, whose digits a Gram matrix would lose."""
        return [
            self._stack(name, facts).triangles()[self._cells] * (self._share if name == ADJOINT else 1.0)
            for name, facts in self._stacks(is_float64=True)
        ]

    def take(
        self,
        added: Sequence[Tensor | None],
        stacked: Sequence[Sequence[Tensor]],
        brought: Sequence[Sequence[Tensor] | None] = (),
    ) -> None:
        """Replace the sums by those of all processes.

        Args:
            added: the sums of ``summands``; None for a gradient that another process has.
            stacked: the ``triangles`` of every process.
            brought: every process's gradient, of each of those ``brought``; None for one that another process has.
        """
        sums, facts, summed = self._sums, self._facts, self._summed
        left = [one for place, one in enumerate(added) if one is not None and not self.is_gradient(place)]
        sums.take_counted(facts.rows, facts.own_rows, facts.squared_norms, self._share)
        for gradient, matrices in zip(summed, added[: len(summed)], strict=True):
            if matrices is None:
                gradient.give_away()
                continue
            whole = gradient.matrices()
            if matrices.data_ptr() != whole.data_ptr():  # else they were added up where they are
                whole[self._cells.to(whole.device)] = matrices
            gradient.replace(whole, self._precision)
        for gradient, of_processes in zip(self._gradients if self._are_brought else [], brought, strict=True):
            if of_processes is None:
                gradient.give_away()
            else:
                gradient.replace(self._added_up(of_processes), self._precision)
        for name, own in self._stacks(is_float64=False):
            sums.stacks[name] = RowStack(own.width, sums.grouping, own.blocks)
            sums.stacks[name].take_grams(self._spread(left.pop(0)))
        sums.moments.take(left, facts.unknown)
        for (name, own), of_processes in zip(self._stacks(is_float64=True), stacked, strict=True):
            sums.stacks[name] = RowStack(own.width, sums.grouping, own.blocks)
            for triangles in of_processes:
                for cell, rows in zip(self._cells.tolist(), triangles, strict=True):
                    sums.stacks[name].add(rows, cell)
        sums.arrived, sums.passes, sums.eps, sums.shared = facts.arrived, facts.passes, facts.eps, facts.shared
        sums.used_elsewhere, sums.only_gradients = facts.used_elsewhere, facts.only_gradients
        sums.has_rows = facts.has_rows

    @property
    def _precision(self) -> torch.dtype:
        """What the digits of the gradients' factors are worth."""
        return torch.float64 if self._facts.is_float64 else torch.float32

    def _added_up(self, of_processes: Sequence[Tensor]) -> Tensor:
        """The gradient of all processes' samples in float64, in the order of the processes: (cells, out, in)."""
        first = of_processes[0]
        whole = first.new_zeros((self._sums.grouping.cells, *first.shape[1:]), dtype=torch.float64)
        at_once = NUMBERS_AT_ONCE if whole.device.type == "cpu" else whole.numel()
        for place, cell in enumerate(self._cells.tolist()):
            parts = (one[place].flatten().split(at_once) for one in of_processes)
            for total, *own in zip(whole[cell].flatten().split(at_once), *parts, strict=True):
                for part in own:
                    total.add_(part)
                total.mul_(self._share)
        return whole

    def _known(self, of_cells: Tensor) -> Tensor:
        """The values of the cells that there are; where these are the first ones, without a copy."""
        count = len(self._cells)
        is_first = bool((self._cells == torch.arange(count)).all())
        return of_cells[:count] if is_first else of_cells[self._cells.to(of_cells.device)]

    def _spread(self, of_cells: Tensor) -> Tensor:
        """Some cells' values among zeros for the others."""
        whole = of_cells.new_zeros((self._sums.grouping.cells, *of_cells.shape[1:]))
        whole[self._cells.to(whole.device)] = of_cells
        return whole
