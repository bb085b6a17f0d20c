"""The spectrum of rows that arrive batch by batch and are never all in memory."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from autospec.spectra.groups import Grouping
from autospec.spectra.singular import of_gram, on_capable_device, triangle

STRIPS = 4
"""A Gram matrix is summed in so many strips, each up to the diagonal: 5/8 of the work of the whole of it."""

NARROW = 256
"""Up to this width the whole matrix is summed at once, since a product of narrow strips is slower."""


class RowStack:
    """The rows of ``A`` or ``Δ`` of every group, stacked over the batches of an epoch, as far as their spectra need.

    Rows in float32 or less are kept as a running Gram matrix in float64 (error about 1e-8 · σ₁), rows in float64
    as a running QR triangle. Blocks (see ``Factors``) are stacked as rows of one matrix (``A``) or are the
    diagonal blocks of one (``Δ``).
    """

    def __init__(self, width: int, grouping: Grouping, blocks: int = 1) -> None:
        self.width = width
        self.grouping = grouping
        self.blocks = blocks
        self._block_width = width // blocks
        self._grams: Tensor | None = None
        self._triangles: list[list[Tensor]] = [[] for _ in range(grouping.cells)]
        self._float64 = False
        self._spectra: Tensor | None = None
        self._lender: RowStack | None = None

    def add_grams(self, grams: Tensor) -> None:
        """Add rows that are in float32 or less by their Gram matrices, (cells, width, width) float64."""
        self._spectra = None
        self._begin_grams(grams.device)[:, 0] += on_capable_device(grams)

    def _begin_grams(self, device: torch.device) -> Tensor:
        """The Gram matrices so far, of this stack's own."""
        if self._grams is None:
            shape = (self.grouping.cells, self.blocks, self._block_width, self._block_width)
            self._grams = torch.zeros(shape, dtype=torch.float64, device=device)
        elif self._lender is not None:
            self._grams = self._grams.clone()
        self._lender = None
        return self._grams

    def add(self, rows: Tensor, cell: int) -> None:
        """Add rows (blocks, n, width / blocks) of one cell; float64 rows must not follow float32 ones."""
        self._spectra = None
        rows = on_capable_device(rows)
        if self.blocks == 1:
            rows = rows.flatten(0, 1).unsqueeze(0)
        if rows.dtype == torch.float64:
            self._float64, self._lender = True, None
            self._triangles[cell].append(triangle(rows) if rows.shape[1] > rows.shape[2] else rows)
            if len(self._triangles[cell]) > 1:
                joined = torch.cat(self._triangles[cell], dim=1)
                self._triangles[cell] = [triangle(joined)]
            return
        _add_lower(self._begin_grams(rows.device)[cell], rows.double())

    def copied(self) -> RowStack:
        """The rows so far, apart from what is added to either afterwards."""
        other = self.lent()
        other._lender = None
        other._grams = None if self._grams is None else self._grams.clone()
        return other

    def lent(self) -> RowStack:
        """The same rows, to which others can be added; their spectra are computed once, and these must stay."""
        other = copy.copy(self)
        other._lender = self
        other._triangles = [list(parts) for parts in self._triangles]
        return other

    def spectra(self) -> Tensor:
        """(reported, width) float64: singular values of every reported group's rows, zeros beyond their rank."""
        if self._spectra is None and self._lender is not None:
            self._spectra = self._lender.spectra()
        elif self._spectra is None:
            values = self._of_triangles() if self._float64 else self._of_grams()
            self._spectra = values.flatten(1).sort(dim=1, descending=True).values
        return self._spectra

    def grams(self) -> Tensor:
        """(reported, width, width) float64: the Gram matrix of every reported group's rows."""
        if self._float64:
            lower = torch.stack([self._gram_of_triangles(parts) for parts in self._triangles])
        elif self._grams is None:
            lower = torch.zeros(self.grouping.cells, self.blocks, *(self._block_width,) * 2, dtype=torch.float64)
        else:
            lower = self._grams.tril()  # of which alone is known what it holds
        whole = lower + lower.tril(-1).mT
        return torch.stack([torch.block_diag(*blocks) for blocks in self.grouping.sums(whole)])

    def _gram_of_triangles(self, parts: list[Tensor]) -> Tensor:
        """(blocks, width, width): the lower half of one cell's Gram matrix."""
        if not parts:
            return torch.zeros(self.blocks, *(self._block_width,) * 2, dtype=torch.float64)
        joined = torch.cat(parts, dim=1)
        return (joined.mT @ joined).tril()

    def _of_grams(self) -> Tensor:
        if self._grams is None:
            return torch.zeros(self.grouping.reported, self.blocks, self._block_width, dtype=torch.float64)
        return of_gram(self.grouping.sums(self._grams))

    def _of_triangles(self) -> Tensor:
        return torch.stack([self._of_triangle(members) for members in self.grouping.members])

    def _of_triangle(self, members: Tensor) -> Tensor:
        stacked = [part for cell in members.nonzero()[:, 0].tolist() for part in self._triangles[cell]]
        values = torch.zeros(self.blocks, self._block_width, dtype=torch.float64)
        if not stacked:
            return values
        joined = torch.cat(stacked, dim=1)
        if not joined.isfinite().all():
            return values.fill_(torch.nan)
        computed = torch.linalg.svdvals(joined)
        values[:, : computed.shape[1]] = computed
        return values


def _add_lower(grams: Tensor, rows: Tensor) -> None:
    """Add Gram matrices of rows (blocks, n, width) to some, of which only the lower triangle and the diagonal count."""
    width = rows.shape[2]
    strip = -(-width // STRIPS) if width > NARROW else max(width, 1)
    for start in range(0, width, strip):
        end = min(start + strip, width)
        grams[:, start:end, :end] += rows[..., start:end].mT @ rows[..., :end]
