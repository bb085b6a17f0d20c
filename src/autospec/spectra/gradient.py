"""The gradient of one weight, split by group and summed over batches."""

from __future__ import annotations

import torch
from torch import Tensor

from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import Grouping, SampleGroups
from autospec.spectra.settled import Settled, cancellation_of, cosines_of
from autospec.spectra.singular import of_matrix, of_product, on_capable_device, padded


def group_gradients(activation: Tensor, adjoint: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """The parts ``∇_c = Δ_cᵀ A_c`` that the groups of samples contribute to a weight's gradient (paper, eq. 5).

    Over all samples that are in a group the parts add up to the gradient.

    Args:
        activation: (n, ..., in), the layer's input; further leading dimensions are positions of tied weights.
        adjoint: (n, ..., out) with the same leading dimensions, the loss's derivative by the layer's output.
        group: (n,) integers from 0, the group of each sample; -1 for a sample in no group.
        n_groups: How many groups there are.

    Returns:
        (n_groups, out, in).

    Raises:
        ValueError: Shapes or labels do not fit.

    Example:
        >>> eye = torch.eye(2)
        >>> group_gradients(eye, eye, torch.tensor([0, 1]), 2)
        tensor([[[1., 0.],
                 [0., 0.]],
        <BLANKLINE>
                [[0., 0.],
                 [0., 1.]]])
    """
    n = len(activation)
    if group.shape != (n,):
        raise ValueError(f"group must have one label for each of the {n} samples, not shape {tuple(group.shape)}")
    if n and not -1 <= int(group.min()) <= int(group.max()) < n_groups:
        raise ValueError(f"group labels must lie between -1 and {n_groups - 1}")
    factors = GradientFactors(
        activation.reshape(n, -1, activation.shape[-1]), adjoint.reshape(n, -1, adjoint.shape[-1])
    )
    cells = SampleGroups.of(group, n_groups + 1)
    return torch.stack([factors.product(samples) for samples in cells.samples[:-1]])


class GradientSum:
    """The group gradients of one weight, summed over the batches of an epoch.

    While the rows are few, the factors are kept and the gradient is never formed; after that the matrix of each
    cell is summed in float64.
    """

    def __init__(self, shape: tuple[int, int], grouping: Grouping) -> None:
        self.shape = shape
        self.grouping = grouping
        self.dtype = torch.float32
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self._matrices: Tensor | None = None
        self._is_borrowed = False
        self._settled: Settled | None = None
        self._between_cells: Tensor | None = None
        self._spectra: Tensor | None = None
        self._is_elsewhere = False

    def add(self, factors: GradientFactors, cells: SampleGroups) -> None:
        """Add one use of the weight in one batch."""
        self._begin_anew(factors.dtype)
        if self._matrices is None and self._stays_small(factors):
            self._keep(factors, cells)
            return
        if self._matrices is None and not self._kept and factors.height == self.shape[0]:
            self._matrices = on_capable_device(factors.products(cells))
            self._is_borrowed = self._matrices.dtype != torch.float64
            return
        rows = slice(factors.first_row, factors.first_row + factors.height)
        self._own(factors.device)[:, rows] += on_capable_device(factors.products(cells))

    def add_matrices(self, matrices: Tensor) -> None:
        """Add gradients that are already split: (cells, out, in), which nobody changes from here on."""
        self._begin_anew(matrices.dtype)
        if self._matrices is None and not self._kept:
            self._matrices, self._is_borrowed = on_capable_device(matrices), True
            return
        self._own(matrices.device).add_(on_capable_device(matrices))

    def _begin_anew(self, dtype: torch.dtype) -> None:
        """Something is added, in numbers of some type: what was computed of the sum holds no longer."""
        self._settled = self._between_cells = self._spectra = None
        self.dtype = torch.promote_types(self.dtype, dtype)

    def _own(self, device: torch.device) -> Tensor:
        """The sum so far, (cells, out, in) float64, which can be added to."""
        self._form(device)
        assert self._matrices is not None
        if self._is_borrowed:
            self._matrices, self._is_borrowed = self._matrices.to(torch.float64, copy=True), False
        return self._matrices

    def spectra(self) -> Tensor:
        """(reported, min(shape)) float64: singular values of every reported group's gradient, descending."""
        if self._settled is not None:
            return self._settled.spectra
        self._check_here()
        if self._spectra is None and self._matrices is None:
            self._spectra = torch.stack([self._kept_spectrum(row) for row in self.grouping.members])
        elif self._spectra is None:
            self._spectra = of_matrix(self.gradients(), self.dtype)
        return self._spectra

    @property
    def unsettled(self) -> Tensor | None:
        """(cells, out, in): the matrices that spectra are still to be had from by their Gram matrices, or None."""
        is_had = self._settled is not None or self._spectra is not None
        return None if is_had or self.dtype == torch.float64 or 0 in self.shape else self._matrices

    def settle(self, settled: Settled) -> None:
        """Take what was had from the matrices together with those of other weights."""
        self._settled = settled

    @property
    def fits_float32(self) -> bool:
        """Whether its numbers are all of float32, as the product of one batch is; or there are none."""
        return not self._kept and (self._matrices is None or self._matrices.dtype == torch.float32)

    def held(self, dtype: torch.dtype) -> Tensor:
        """(cells, out, in): every cell's gradient, which may not be changed; in float32 only where that fits."""
        if self._matrices is None and not self._kept:
            return torch.zeros((self.grouping.cells, *self.shape), dtype=dtype)
        self._form(torch.device("cpu"))
        assert self._matrices is not None
        return self._matrices.to(dtype)

    @property
    def numbers(self) -> int:
        """How many numbers are held."""
        return sum(part.numel() for kept in self._kept for part in kept) + (
            0 if self._matrices is None else self._matrices.numel()
        )

    def take_spectra(self, spectra: Tensor) -> None:
        """Take leading spectra (reported, k) that were had in another way."""
        self._spectra = spectra

    def gradients(self) -> Tensor:
        """(reported, out, in) float64: every reported group's gradient."""
        self._form(torch.device("cpu"))
        assert self._matrices is not None
        return self.grouping.sums(self._matrices.double())

    def cosines(self) -> Tensor:
        """(reported, reported) float64: cosines between the groups' gradients as vectors; NaN for a zero gradient."""
        return self._settled.cosines if self._settled else cosines_of(self.inner_products())

    def cancellation(self) -> Tensor:
        """``‖∇_all‖ / Σ_c ‖∇_c‖`` in float64, over all cells ``c``; NaN where all are zero."""
        if self._settled:
            return self._settled.cancellation
        return cancellation_of(self.inner_products()[0, 0], self.norms_of_cells())

    def matrices(self) -> Tensor:
        """(cells, out, in) float64: every cell's gradient, which may be changed in place."""
        self._settled = self._between_cells = self._spectra = None
        return self._own(torch.device("cpu"))

    def replace(self, matrices: Tensor, dtype: torch.dtype) -> None:
        """Take other gradients of the cells, whose factors came in ``dtype``: those of several processes together."""
        self._settled = self._between_cells = self._spectra = None
        self._kept, self._matrices, self._is_borrowed, self.dtype = [], matrices, False, dtype

    def give_away(self) -> None:
        """Keep nothing: another process has the sum of all, and takes its spectra."""
        self._settled = self._between_cells = self._spectra = self._matrices = None
        self._kept, self._is_elsewhere = [], True

    def _check_here(self) -> None:
        if self._is_elsewhere:
            raise RuntimeError("a gradient's sum was asked for in a process that has given it away")

    def inner_products(self) -> Tensor:
        """(reported, reported) float64: Frobenius inner products between the reported groups' gradients."""
        # twice over: a NaN of one cell must spoil only the groups that hold it
        return self.grouping.sums(self.grouping.sums(self._of_cells()).mT.contiguous())

    def norms_of_cells(self) -> Tensor:
        """(cells,) float64: the Frobenius norm of each cell's gradient, the last that of the samples of no group."""
        return self._of_cells().diagonal().clamp_min(0.0).sqrt()

    def _of_cells(self) -> Tensor:
        """(cells, cells): Frobenius inner products between the cells' gradients."""
        self._check_here()
        if self._between_cells is None:
            self._between_cells = self._of_kept() if self._matrices is None else _products_between(self._matrices)
        return self._between_cells

    def _of_kept(self) -> Tensor:
        """(cells, cells): inner products from the factors, ``⟨Δ_cᵀA_c, Δ_dᵀA_d⟩ = Σ (A_c A_dᵀ) ∘ (Δ_c Δ_dᵀ)``."""
        cells = self.grouping.cells
        if not self._kept:
            return torch.zeros(cells, cells, dtype=torch.float64)
        activation, adjoint, cell = self._stacked()
        members = torch.nn.functional.one_hot(cell, cells).to(activation)
        return members.mT @ ((activation @ activation.mT) * (adjoint @ adjoint.mT)) @ members

    def _stays_small(self, factors: GradientFactors) -> bool:
        """Whether the rows so far are few enough for the QR of the factors to be the cheaper exact route."""
        rows = sum(len(cell) for _, _, cell in self._kept) + factors.samples * factors.positions
        # a part of the weight's rows (the queries of a cross-attention) has its place in the formed matrix alone
        is_whole = type(factors) is GradientFactors and factors.blocks == 1 and factors.height == self.shape[0]
        return is_whole and 2 * rows <= min(self.shape)

    def _keep(self, factors: GradientFactors, cells: SampleGroups) -> None:
        activation, adjoint = (
            on_capable_device(factor[0]).double() for factor in (factors.activation, factors.adjoint)
        )
        if factors.transposed:
            activation, adjoint = adjoint, activation
        # kept past the batch, in which an in-place operation or the optimizer may write over what they are views of
        cell = cells.of_sample.to(activation.device).repeat_interleave(factors.positions)
        self._kept.append((activation.flatten(0, 1).clone(), adjoint.flatten(0, 1).clone(), cell))

    def _stacked(self) -> tuple[Tensor, Tensor, Tensor]:
        activation, adjoint, cell = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
        return activation, adjoint, cell

    def _kept_spectrum(self, members: Tensor) -> Tensor:
        if not self._kept:
            return torch.zeros(min(self.shape), dtype=torch.float64)
        activation, adjoint, cell = self._stacked()
        chosen = members.to(cell.device)[cell] > 0
        return padded(of_product(activation[chosen], adjoint[chosen]), min(self.shape))

    def _form(self, device: torch.device) -> None:
        """Turn what is kept into one matrix per cell."""
        self._check_here()
        if self._matrices is not None:
            return
        kept, self._kept = self._kept, []
        if device.type == "mps":  # without float64
            device = torch.device("cpu")
        device = kept[0][0].device if kept else device
        self._matrices = torch.zeros((self.grouping.cells, *self.shape), dtype=torch.float64, device=device)
        for activation, adjoint, cell in kept:
            for c in range(self.grouping.cells):
                self._matrices[c] += adjoint[cell == c].mT @ activation[cell == c]


def _products_between(matrices: Tensor) -> Tensor:
    """(..., cells, out, in) → (..., cells, cells) float64: Frobenius inner products."""
    flat = matrices.flatten(-2).double()
    return flat @ flat.mT
