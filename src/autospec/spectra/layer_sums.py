"""What is summed up of one layer between two records: everything its statistics are computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from autospec.spectra.constant_rows import ConstantRows
from autospec.spectra.factors import GradientFactors, at_least_float32
from autospec.spectra.gradient import GradientSum
from autospec.spectra.groups import Grouping, SampleGroups
from autospec.spectra.moments import Moments
from autospec.spectra.positions import PositionSums
from autospec.spectra.rows import RowStack
from autospec.spectra.subspace import Subspaces, subspaces_of
from autospec.store.schema import ACTIVATION, ADJOINT, GRADIENT, GROUP, OTHER_GROUP

POSITIONS = "positions"


class LayerSums:
    """The sums over an epoch's batches of one weight: its group gradients, its rows and their norms.

    ``keep`` names which of gradient, activation, adjoint and positions are needed; norms and row counts always are.
    ``shape`` is that of the weight's matrix (out, in); ``bins`` see ``PositionSums``; ``chain`` is what a linear chain
    bounds the gradient's rank by, where the layer stands in one. ``directions`` is the dimension of ``subspaces``, and
    ``earlier`` are those at the record before, where they are known. ``constant`` remembers what stays the same, under
    the layer's ``name``. ``measured_floors`` are the noise floors of this record, where they were measured;
    ``carry_floors`` has them from earlier records. ``bounds`` (reported, k) say how far leading singular values may be
    off, where they were asked for with a tolerance.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        grouping: Grouping,
        keep: Collection[str],
        bins: int | None = None,
        chain: int | None = None,
        directions: int = 1,
        earlier: Subspaces | None = None,
        constant: ConstantRows | None = None,
        name: str = "",
    ) -> None:
        self._constant, self._name = constant, name
        self.shape = shape
        self.grouping = grouping
        self.keep = frozenset(keep)
        self.chain = chain
        self.passes = 0
        self.directions = directions
        self.earlier = earlier
        self.gradient = GradientSum(shape, grouping)
        self.positions = PositionSums(shape, grouping, bins)
        self.stacks: dict[str, RowStack] = {}
        self.moments = Moments(self.keep, grouping.cells)
        self.weight: Tensor | None = None
        self.weight_before: Tensor | None = None
        self._rows = self._own_rows = grouping.no_rows
        self.used_elsewhere = False
        self._squared_norms = grouping.no_norms
        self.eps = 0.0
        self.left_out: Tensor | None = None
        self.measured_floors: Mapping[str, Tensor] = {}
        self.carry_floors: Callable[[LayerSums], Mapping[str, Tensor]] | None = None
        self.bounds: Tensor | None = None
        self.arrived = False
        self.shared = False
        self.only_gradients = False
        self.has_rows = True

    def add(self, factors: GradientFactors, cells: SampleGroups, batch: int = 0) -> None:
        """Add one use of the weight in the ``batch``-th batch."""
        if not factors.has_norms:
            self._add_split(factors, cells)
            return
        rows = self._added(factors, cells)
        self.moments.add(factors, cells, batch)
        self._own_rows = self._own_rows.to(rows.device) + rows
        self.has_rows &= factors.has_rows
        for name in (ACTIVATION, ADJOINT):
            if name in self.keep and factors.has_rows:
                self._add_rows(name, factors, cells)

    def add_gradient(self, factors: GradientFactors, cells: SampleGroups) -> None:
        """Add one use to the gradient alone: that of a shared weight under another module."""
        self.used_elsewhere = True
        if not factors.has_norms:
            self._add_split(factors, cells)
            return
        self.moments.add_elsewhere()
        self._added(factors, cells)

    def _add_split(self, factors: GradientFactors, cells: SampleGroups) -> None:
        """Add the products of factors of which nothing else is known."""
        self.passes += 1
        self.shared |= cells.shared
        self.has_rows = False
        self.add_matrices(factors.products(cells), max(factors.eps, product_eps(factors.device)))

    def _added(self, factors: GradientFactors, cells: SampleGroups) -> Tensor:
        """Add one use to all that does not depend on which module it is of; its rows per cell."""
        self.arrived = True
        self.passes += 1
        self.shared |= cells.shared
        self.eps = max(self.eps, factors.eps, product_eps(factors.device))
        rows = cells.sums(factors.rows_per_sample)
        # where the factors are: a copy from a GPU would wait for it
        self._rows = self._rows.to(rows.device) + rows
        norms = torch.stack([cells.sums(norm) for norm in factors.squared_norms()])
        self._squared_norms = self._squared_norms.to(norms.device) + norms
        if GRADIENT in self.keep:
            self.gradient.add(factors, cells)
        if POSITIONS in self.keep and factors.has_rows:
            self.positions.add(factors, cells)
        return rows

    def add_matrices(self, gradients: Tensor, eps: float) -> None:
        """Add gradients that are split already, (cells, out, in); their factors are not known."""
        self.arrived = self.only_gradients = True
        self.eps = max(self.eps, eps)
        self.gradient.add_matrices(gradients)

    @property
    def floors_are_measured(self) -> bool:
        """Whether the noise floors are those of this record itself."""
        return bool(self.measured_floors)

    @property
    def floors(self) -> Mapping[str, Tensor]:
        """(reported,) by quantity: the noise floors, measured or carried from earlier records; empty for neither."""
        return self.measured_floors or self._carried

    @cached_property
    def _carried(self) -> Mapping[str, Tensor]:
        """Floors carried from earlier records; asked for when everything is summed up."""
        return self.carry_floors(self) if self.carry_floors else {}

    @property
    def numbers(self) -> int:
        """How many numbers are held until spectra are computed."""
        return self.gradient.numbers + sum(stack.numbers for stack in self.stacks.values())

    @cached_property
    def subspaces(self) -> Subspaces:
        """The leading subspaces of the groups' gradients; asked for when everything is summed up."""
        return leading_subspaces(self)

    def rows_floor(self, name: str) -> Tensor:
        """(reported,): the noise floor of ``A``'s or ``Δ``'s singular values, ``eps √min(shape) σ₁`` by the formula."""
        return self.floors[name] if name in self.floors else self.formula_of_rows(name)

    def formula_of_rows(self, name: str) -> Tensor:
        """(reported,): ``eps √min(shape) σ₁`` of ``A`` or ``Δ``."""
        spectra = self.stacks[name].spectra()
        shorter = self.grouping.sums(self.rows).clamp_max(spectra.shape[1])
        return self.eps * shorter.double().sqrt() * spectra[:, 0].cpu()

    @property
    def rows(self) -> Tensor:
        """(cells,) int64: the rows of each cell, those of all uses of the weight."""
        return self._rows.cpu()

    @property
    def own_rows(self) -> Tensor:
        """(cells,) int64: those of the first use alone."""
        return self._own_rows.cpu()

    def leave_out(self, bounds: Tensor) -> None:
        """Note that the cells' gradients (cells,) may be off by so much, in the Frobenius norm."""
        self.left_out = bounds if self.left_out is None else self.left_out + bounds

    @property
    def squared_norms(self) -> Tensor:
        """(2, cells) float64: the squared Frobenius norms of each cell's rows of ``A`` and of ``Δ``."""
        return self._squared_norms.cpu()

    def take_counted(
        self, rows: Sequence[int], own_rows: Sequence[int], squared_norms: Sequence[Sequence[float]], share: float
    ) -> None:
        """Take other rows, own rows and squared norms, of a loss that counts ``share``: those of several processes."""
        self._rows, self._own_rows = torch.tensor(rows), torch.tensor(own_rows)
        self._squared_norms = torch.tensor(squared_norms, dtype=torch.float64) * torch.tensor([[1.0], [share**2]])

    def norms(self) -> dict[str, Tensor]:
        """(reported,) float64 each: ``‖A_c‖`` and ``‖Δ_c‖`` in the Frobenius norm."""
        return dict(zip((ACTIVATION, ADJOINT), self.grouping.sums(self.squared_norms.T).sqrt().unbind(1), strict=True))

    def norm_product(self) -> Tensor:
        """(reported,) float64: ``‖A_c‖ ‖Δ_c‖``, the scale of the terms of each gradient."""
        norms = self.norms()
        return norms[ACTIVATION] * norms[ADJOINT]

    def told_apart(self, value: Tensor, dimensions: tuple[str, ...]) -> Tensor:
        """A statistic's value as far as it is known: for ``all`` alone where a use was shared by all samples."""
        if not self.shared or not value.is_floating_point():
            return value
        known = torch.zeros_like(value, dtype=torch.bool)
        if dimensions[:1] == (GROUP,):
            known[(0,) * sum(dimension in (GROUP, OTHER_GROUP) for dimension in dimensions)] = True
        return value.where(known, torch.nan)

    def _add_rows(self, name: str, factors: GradientFactors, cells: SampleGroups) -> None:
        """Add one use's rows of ``A`` or ``Δ``, unless they are those of the record before."""
        may_stay = self._constant is not None and name == ACTIVATION and name not in self.stacks
        recalled = self._constant.recall(self._name, factors, cells) if self._constant and may_stay else None
        if recalled is not None:
            self.stacks[name] = recalled
            return
        self._sum_rows(name, factors, cells)
        if self._constant and may_stay and name in self.stacks:
            self._constant.remember(self._name, factors, cells, self.stacks[name])

    def _sum_rows(self, name: str, factors: GradientFactors, cells: SampleGroups) -> None:
        grams = factors.grams(name == ACTIVATION, cells)
        if grams is not None and self.shape[(name == ACTIVATION) != factors.transposed] == grams.shape[-1]:
            self._stack_of(name, grams.shape[-1]).add_grams(grams)
            return
        rows_of = factors.activation_rows if name == ACTIVATION else factors.adjoint_rows
        for cell, samples in enumerate(cells.samples):
            for part in samples.split(factors.samples_at_once) if len(samples) else ():
                self._stack(name, factors, at_least_float32(rows_of(part)), cell)

    def _stack(self, name: str, factors: GradientFactors, rows: Tensor, cell: int) -> None:
        """Stack rows (blocks, rows, width), placed where they stand in the weight's matrix."""
        along_columns = (name == ACTIVATION) != factors.transposed
        width = self.shape[along_columns]
        if not along_columns and len(rows) == 1 and rows.shape[-1] != width:
            rows = pad(rows, (factors.first_row, width - factors.first_row - rows.shape[-1]))
        # the blocks of one factor stand beside one another, those of the other on top of one another
        self._stack_of(name, width, 1 if along_columns else len(rows)).add(rows, cell)

    def _stack_of(self, name: str, width: int, blocks: int = 1) -> RowStack:
        """The stack of ``A`` or ``Δ``, begun where there is none."""
        if name not in self.stacks:
            self.stacks[name] = RowStack(width, self.grouping, blocks)
        return self.stacks[name]


def product_eps(device: torch.device) -> float:
    """The rounding that matrix products of a device add to that of their input: TF32's, where a GPU may use it."""
    cuda = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return 2.0**-11 if device.type == "cuda" and cuda else 0.0


def gradient_floor(sums: LayerSums) -> Tensor:
    """(reported,): the noise floor of a gradient's singular values: ``sums.floors``, or the formula's."""
    return sums.floors[GRADIENT] if GRADIENT in sums.floors else formula_of_gradient(sums)


def formula_of_gradient(sums: LayerSums) -> Tensor:
    """(reported,): ``eps √min(shape) ‖A_c‖ ‖Δ_c‖``.

    The formula is of the rounding of the product ``Δᵀ A``, which scales with the terms that are summed: near a
    stationary point they cancel. It leaves out the rounding of ``A`` and ``Δ`` themselves, of which a residual's
    cancellation can make thousands of times as much. Where only gradients were taken (every engine but hooks) it is
    ``eps max(shape) σ₁``, which does not know of either cancellation. ``sums.left_out`` is added: what sites that send
    leading directions say their gradients may be off by, which no singular value moves by more than (Weyl 1912).
    """
    if sums.only_gradients:
        rounding = sums.eps * max(sums.shape) * sums.gradient.spectra()[:, 0].cpu()
    else:
        rounding = sums.eps * math.sqrt(min(sums.shape)) * sums.norm_product()
    return rounding if sums.left_out is None else rounding + sums.grouping.sums(sums.left_out)


def relative_floor(sums: LayerSums) -> Tensor:
    """(reported,): the noise floor of each group's gradient relative to the norms of its factors."""
    size = sums.norm_product()
    formula = torch.full_like(size, sums.eps * math.sqrt(min(sums.shape)))
    if GRADIENT not in sums.floors:
        return formula
    return torch.where(size > 0, sums.floors[GRADIENT] / size, formula)


def leading_subspaces(sums: LayerSums) -> Subspaces:
    """The subspaces of the first ``sums.directions`` singular vectors of every reported group's gradient."""
    return subspaces_of(sums.gradient.gradients(), gradient_floor(sums), sums.directions)
