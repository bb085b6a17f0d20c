"""The gradient of one weight, split by group and summed over batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import Grouping, SampleGroups
from autospec.spectra.singular import gram, of_gram, of_matrix, of_product, on_capable_device, padded


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
        self._between_cells: Tensor | None = None
        self._between_groups: Tensor | None = None
        self._spectra: Tensor | None = None

    def add(self, factors: GradientFactors, cells: SampleGroups) -> None:
        """Add one use of the weight in one batch."""
        self._between_cells = self._between_groups = self._spectra = None
        self.dtype = torch.promote_types(self.dtype, factors.dtype)
        if self._matrices is None and self._stays_small(factors):
            self._keep(factors, cells)
            return
        self._form(factors.device)
        assert self._matrices is not None
        rows = slice(factors.first_row, factors.first_row + factors.height)
        self._matrices[:, rows] += factors.products(cells)

    def add_matrices(self, matrices: Tensor) -> None:
        """Add gradients that are already split: (cells, out, in)."""
        self._between_cells = self._between_groups = self._spectra = None
        self.dtype = torch.promote_types(self.dtype, matrices.dtype)
        if self._matrices is None and not self._kept:
            self._matrices = on_capable_device(matrices).to(torch.float64, copy=True)
            return
        self._form(matrices.device)
        assert self._matrices is not None
        self._matrices += on_capable_device(matrices)

    def spectra(self) -> Tensor:
        """(reported, min(shape)) float64: singular values of every reported group's gradient, descending."""
        if self._spectra is None and self._matrices is None:
            self._spectra = torch.stack([self._kept_spectrum(row) for row in self.grouping.members])
        elif self._spectra is None:
            self._spectra = of_matrix(self.gradients(), self.dtype)
        return self._spectra

    @property
    def unsettled(self) -> Tensor | None:
        """(cells, out, in): the matrices that spectra are still to be had from by their Gram matrices, or None."""
        is_settled = self._spectra is not None or self.dtype == torch.float64 or 0 in self.shape
        return None if is_settled else self._matrices

    def settle(self, spectra: Tensor, between_cells: Tensor, between_groups: Tensor) -> None:
        """Take spectra and inner products that were had from the matrices together with those of other weights."""
        self._spectra, self._between_cells, self._between_groups = spectra, between_cells, between_groups

    def take_spectra(self, spectra: Tensor) -> None:
        """Take leading spectra (reported, k) that were had in another way."""
        self._spectra = spectra

    def gradients(self) -> Tensor:
        """(reported, out, in) float64: every reported group's gradient."""
        self._form(torch.device("cpu"))
        assert self._matrices is not None
        return self.grouping.sums(self._matrices)

    def inner_products(self) -> Tensor:
        """(reported, reported) float64: Frobenius inner products between the reported groups' gradients."""
        if self._between_groups is not None:
            return self._between_groups
        # twice over: a NaN of one cell must spoil only the groups that hold it
        return self.grouping.sums(self.grouping.sums(self._of_cells()).mT.contiguous())

    def norms_of_cells(self) -> Tensor:
        """(cells,) float64: the Frobenius norm of each cell's gradient, the last that of the samples of no group."""
        return self._of_cells().diagonal().clamp_min(0.0).sqrt()

    def _of_cells(self) -> Tensor:
        """(cells, cells): Frobenius inner products between the cells' gradients."""
        if self._between_cells is None:
            self._between_cells = self._of_kept() if self._matrices is None else self._of_matrices(self._matrices)
        return self._between_cells

    def _of_matrices(self, matrices: Tensor) -> Tensor:
        flat = matrices.flatten(1)
        return flat @ flat.mT

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
        if self._matrices is not None:
            return
        kept, self._kept = self._kept, []
        if device.type == "mps":
            device = torch.device("cpu")
        device = kept[0][0].device if kept else device
        self._matrices = torch.zeros((self.grouping.cells, *self.shape), dtype=torch.float64, device=device)
        for activation, adjoint, cell in kept:
            for c in range(self.grouping.cells):
                self._matrices[c] += adjoint[cell == c].mT @ activation[cell == c]


def settle_spectra(sums: Iterable[GradientSum]) -> None:
    """Compute the spectra of several weights together: eigenvalue problems of one size are solved in one call.

    Weights whose gradients hold NaN or infinity are left to themselves.
    """
    waiting = [(one, one.unsettled) for one in sums]
    by_device: dict[torch.device, list[tuple[GradientSum, Tensor]]] = {}
    for one, matrices in waiting:
        if matrices is not None:
            by_device.setdefault(matrices.device, []).append((one, matrices))
    for pairs in by_device.values():
        _settle(pairs)


def _settle(pairs: Sequence[tuple[GradientSum, Tensor]]) -> None:
    members = pairs[0][0].grouping.members.to(pairs[0][1])
    flat = [matrices.flatten(1) for _, matrices in pairs]
    between_cells = torch.stack([rows @ rows.mT for rows in flat])
    if not between_cells.sum().isfinite():
        return
    between_groups = members @ between_cells @ members.mT
    grams = [gram((members @ rows).unflatten(1, one.shape)) for rows, (one, _) in zip(flat, pairs, strict=True)]
    spectra: dict[int, Tensor] = {}
    for size in {one.shape[-1] for one in grams}:
        places = [place for place, one in enumerate(grams) if one.shape[-1] == size]
        spectra |= zip(places, of_gram(torch.stack([grams[place] for place in places])), strict=True)
    for place, (one, _) in enumerate(pairs):
        one.settle(spectra[place], between_cells[place], between_groups[place])
