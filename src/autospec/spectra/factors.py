"""The two factors of one weight's gradient, as a layer rule hands them over."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from autospec.spectra.groups import SampleGroups
from autospec.spectra.symmetric import times_own_transpose

NUMBERS_AT_ONCE = 2**18
"""So many numbers of rows are held in float64 at a time: 2 MiB, which a processor's cache holds."""


@dataclass
class _KnownSide:
    """What is computed already of one side of the factors; several weights may have it in common.

    ``grams`` stand beside the cell of each sample that they were summed by.
    """

    tensor: Tensor  # kept, so that no other can have its id
    squared_norms: Tensor | None = None
    grams: tuple[Tensor, Tensor] | None = None


_Known = dict[int, _KnownSide]


class GradientFactors:
    """The input activations ``A`` and adjoints ``Δ`` of one use of a weight: ``∇W = Δᵀ A`` (paper, eq. 1).

    Both keep the samples of the batch apart from the positions at which the weight is tied (steps of a
    sequence, windows of a convolution); a row of the paper's matrices is a (sample, position) pair.

    Shapes: ``activation`` (n, in) or (n, positions, in) or (blocks, n, positions, in); ``adjoint`` likewise
    with ``out / blocks`` last. Blocks are independent products stacked along the rows of the weight's matrix
    (a grouped convolution), so that the rows of ``Δ`` are block diagonal; the first one starts at row ``first_row``.
    With ``transposed`` the weight's matrix is (in × out) instead, ``∇W = Aᵀ Δ`` (an embedding), and blocks are those
    of ``A``: ``in / blocks`` is the last dimension of ``activation``.
    ``row_counts`` (n,): rows per sample where padding makes them differ; padded rows must be zero in ``adjoint``
    and ``activation``.

    A subclass may store something smaller than the rows (``stored``) and make them when they are asked for.
    """

    _known: _Known | None = None

    has_rows = True
    """Whether ``activation`` and ``adjoint`` are rows along the sides of the weight's matrix."""

    has_norms = True
    """Whether the norms of ``activation`` and ``adjoint`` say how large the terms of the product are."""

    _rounded_before = 0.0
    """The spacing of numbers that a factor was once held in."""

    def __init__(
        self,
        activation: Tensor,
        adjoint: Tensor,
        *,
        first_row: int = 0,
        transposed: bool = False,
        row_counts: Tensor | None = None,
    ) -> None:
        self.stored = (_with_blocks(activation.detach()), _with_blocks(adjoint.detach()))
        self.first_row = first_row
        self.transposed = transposed
        self._row_counts = row_counts
        if self.activation.shape[:3] != self.adjoint.shape[:3]:
            raise ValueError(
                f"activation {tuple(activation.shape)} and adjoint {tuple(adjoint.shape)} must agree "
                "in all but their last dimension"
            )
        if not (self._is_quicker_by_sample and self.activation.stride(-1) == self.adjoint.stride(-1) == 1):
            # one copy of what is not contiguous (a sequence with time first), where taking samples out would make many
            self.stored = (self.stored[0].contiguous(), self.stored[1].contiguous())

    @property
    def activation(self) -> Tensor:
        """(blocks, n, positions, in)."""
        return self.stored[0]

    @property
    def adjoint(self) -> Tensor:
        """(blocks, n, positions, out / blocks)."""
        return self.stored[1]

    @property
    def blocks(self) -> int:
        return self.activation.shape[0]

    @property
    def samples(self) -> int:
        return self.activation.shape[1]

    @property
    def positions(self) -> int:
        return self.activation.shape[2]

    @property
    def has_padding(self) -> bool:
        """Whether samples have fewer rows than positions, the others being zero."""
        return self._row_counts is not None

    @property
    def height(self) -> int:
        """The number of rows of the weight's matrix that the product fills."""
        return self.blocks * (self.activation if self.transposed else self.adjoint).shape[-1]

    @property
    def device(self) -> torch.device:
        return self.stored[0].device

    @property
    def dtype(self) -> torch.dtype:
        return torch.promote_types(self.stored[0].dtype, self.stored[1].dtype)

    @property
    def eps(self) -> float:
        """The spacing of the coarser of the two factors' numbers, as they came."""
        now = (torch.finfo(factor.dtype).eps for factor in self.stored if factor.is_floating_point())
        return max(self._rounded_before, *now)

    @property
    def samples_at_once(self) -> int:
        """How many samples' rows to ask for at a time, where making them takes memory."""
        return max(self.samples, 1)

    @property
    def rows_per_sample(self) -> Tensor:
        """(n,) int64: how many rows each sample adds to ``A`` and ``Δ``."""
        if self._row_counts is not None:
            return self._row_counts
        return torch.full((self.samples,), self.positions * self.blocks, device=self.device)

    def activation_rows(self, samples: Tensor) -> Tensor:
        """(blocks, rows, in): rows of ``A`` of some samples, or others with the same singular values."""
        return _rows(self.activation, samples)

    def adjoint_rows(self, samples: Tensor) -> Tensor:
        """(blocks, rows, out / blocks): rows of ``Δ`` of some samples, or others with the same singular values."""
        return _rows(self.adjoint, samples)

    def of_samples(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """``A`` (blocks, rows, in) and ``Δ`` (blocks, rows, out / blocks) of some samples, at least in float32."""
        precise = torch.promote_types(self.dtype, torch.float32)
        return self.activation_rows(samples).to(precise), self.adjoint_rows(samples).to(precise)

    def product(self, samples: Tensor) -> Tensor:
        """The part of the gradient that comes from some samples (blocks · out, in): the paper's ``∇_c`` (eq. 5)."""
        activation, adjoint = self.of_samples(samples)
        if self.transposed:
            activation, adjoint = adjoint, activation
        return (adjoint.transpose(1, 2) @ activation).flatten(0, 1)

    def products(self, cells: SampleGroups) -> Tensor:
        """(cells, height, width): the part of the gradient that comes from each cell's samples.

        In the precision in which it was summed up: float64, or that of one product.
        """
        if self._is_quicker_by_sample:
            activation, adjoint = (factor[0] for factor in (self.activation, self.adjoint))
            precise = torch.promote_types(self.dtype, torch.float32)
            activation, adjoint = activation.to(precise), adjoint.to(precise)
            if self.transposed:
                activation, adjoint = adjoint, activation
            return cells.sums(adjoint.mT @ activation)
        total: Tensor | None = None
        # one product at a time beside the whole: memory that is had anew at every record takes time
        for cell in [cell for cell, samples in enumerate(cells.samples) if len(samples)] or [0]:
            part = self.product(cells.samples[cell])
            if total is None:
                total = part.new_zeros((len(cells.samples), *part.shape))
            total[cell] = part
        assert total is not None
        return total

    def grams(self, of_activation: bool, cells: SampleGroups) -> Tensor | None:
        """(cells, width, width) float64: the Gram matrices of each cell's rows of ``A`` or ``Δ``, one product a sample.

        None for factors in float64, whose digits a Gram matrix would lose, and where copying a cell's rows is quicker.
        """
        side = self.stored[0 if of_activation else 1]
        if not self._is_quicker_by_sample or side.dtype == torch.float64 or side.shape[-1] > self.positions:
            return None
        known = self._known_of(side)
        if known.grams is not None and torch.equal(known.grams[0], cells.of_sample):
            return known.grams[1]
        total = torch.zeros((len(cells.samples), *side.shape[-1:] * 2), dtype=torch.float64, device=self.device)
        at_once = max(1, NUMBERS_AT_ONCE // max(side[0, :1].numel(), 1))
        for part, cell in zip(side[0].split(at_once), cells.of_sample.split(at_once), strict=True):
            precise = part.double()
            total.index_add_(0, cell, times_own_transpose(precise.mT))
        known.grams = cells.of_sample, total
        return total

    @property
    def _is_quicker_by_sample(self) -> bool:
        """Whether a product for each sample holds fewer numbers than the rows that groups would be copied from."""
        if type(self) is not GradientFactors or self.blocks > 1 or self.positions == 1:
            return False
        width, height = self.activation.shape[-1], self.adjoint.shape[-1]
        # a batched product of columns takes several times as long as one product of copied rows
        return min(width, height) > 1 and self.positions * (width + height) >= width * height

    def squared_norms(self) -> tuple[Tensor, Tensor]:
        """Per sample, (n,) each in float64: the squared Frobenius norms of its rows of ``A`` and of ``Δ``."""
        return self._squared_norm(self.activation), self._squared_norm(self.adjoint)

    def _squared_norm(self, side: Tensor) -> Tensor:
        """Those of one side."""
        known = self._known_of(side)
        if known.squared_norms is None:
            known.squared_norms = squared_norm(side.transpose(0, 1))
        return known.squared_norms

    def _known_of(self, side: Tensor) -> _KnownSide:
        if self._known is None:
            self._known = {}
        return self._known.setdefault(id(side), _KnownSide(side))

    def beside(self, activation: Tensor) -> GradientFactors:
        """The factors of another weight whose adjoint is this one's: the norms of that are taken once."""
        other = GradientFactors(activation, self.stored[1])
        if other.stored[1].data_ptr() == self.stored[1].data_ptr():
            other.stored, other._known = (other.stored[0], self.stored[1]), {}
            other._known[id(self.adjoint)] = self._known_of(self.adjoint)
        return other

    def rounded_to(self, spacing: float) -> GradientFactors:
        """The same factors, known to come from numbers of a spacing (those of a kernel in half precision)."""
        if spacing <= self.eps:
            return self
        other = copy.copy(self)
        other._rounded_before = spacing
        return other

    def scaled(self, factor: float) -> GradientFactors:
        """The factors of a loss that is ``factor`` times as large."""
        other = copy.copy(self)
        other._rounded_before = self.eps
        other.stored = (self.stored[0], at_least_float32(self.stored[1]) * factor)
        return other


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in its own precision, half precision in float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def squared_norm(of_samples: Tensor) -> Tensor:
    """(n, ...) → (n,) float64: the squared norm of each sample's entries."""
    # norms in the factor's own precision, squares in float64: half-precision squares would overflow
    precise = torch.promote_types(of_samples.dtype, torch.float32)
    if of_samples.dim() > 2 and not of_samples.is_contiguous():
        # one norm a row, in the order in which rows lie in memory: over dimensions that lie apart (a sequence with time
        # first) it takes many times as long
        order = sorted(range(of_samples.dim() - 1), key=of_samples.stride, reverse=True)
        of_rows = torch.linalg.vector_norm(of_samples.permute(*order, -1), dim=-1, dtype=precise)
        squares = of_rows.double().square()
        if order[-1] == 0:
            return squares.view(-1, len(of_samples)).sum(0)
        return squares.sum([place for place, dimension in enumerate(order) if dimension])
    dimensions = tuple(range(1, of_samples.dim()))
    return torch.linalg.vector_norm(of_samples, dim=dimensions, dtype=precise).double().square()


def _with_blocks(factor: Tensor) -> Tensor:
    """(n, width) or (n, positions, width) or (blocks, n, positions, width) → the last of these."""
    if factor.dim() == 2:
        factor = factor.unsqueeze(1)
    if factor.dim() == 3:
        factor = factor.unsqueeze(0)
    if factor.dim() != 4:
        raise ValueError(f"a factor has 2 to 4 dimensions, not {factor.dim()}")
    return factor


def _rows(factor: Tensor, samples: Tensor) -> Tensor:
    """(blocks, rows, width) of some samples; no copy where they are all of the batch, in order."""
    return chosen(factor, samples, 1).flatten(1, 2)


def chosen(tensor: Tensor, samples: Tensor, dimension: int = 0) -> Tensor:
    """Some samples of a tensor; no copy where they are all of the batch, which comes in order."""
    whole = len(samples) == tensor.shape[dimension]
    return tensor if whole else tensor.index_select(dimension, samples)
