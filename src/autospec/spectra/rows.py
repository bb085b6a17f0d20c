"""The spectrum of rows that arrive batch by batch and are never all in memory."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from autospec.spectra.groups import Grouping
from autospec.spectra.singular import of_gram, on_capable_device, padded, triangle
from autospec.spectra.symmetric import times_own_transpose

FEW = 1.5
"""Rows are few where so many times their number is no more than their width."""


class RowStack:
    """The rows of ``A`` or ``Δ`` of every group, stacked over the batches of an epoch, as far as their spectra need.

    Rows in float32 or less are kept as a running Gram matrix in float64 (error about 1e-8 · σ₁), or as they are while
    those of a group are few: then the Gram matrix along their short side is the smaller. Rows in float64 are kept as
    a running QR triangle. Blocks (see ``Factors``) are stacked as rows of one matrix (``A``) or are the
    diagonal blocks of one (``Δ``).
    """

    def __init__(self, width: int, grouping: Grouping, blocks: int = 1) -> None:
        self.width = width
        self.grouping = grouping
        self.blocks = blocks
        self._block_width = width // blocks
        self._grams: Tensor | None = None
        self._triangles: list[list[Tensor]] = [[] for _ in range(grouping.cells)]
        self._few: dict[int, list[Tensor]] = {}
        self._have_grams: set[int] = set()
        self._float64 = False
        self._spectra: Tensor | None = None
        self._lender: RowStack | None = None

    def add_grams(self, grams: Tensor) -> None:
        """Add rows that are in float32 or less by their Gram matrices, (cells, width, width) float64."""
        self._spectra = None
        self._have_grams.update(range(self.grouping.cells))
        summed = self._begin_grams(grams.device)
        summed[:, 0] += on_capable_device(grams)
        for cell in list(self._few):
            self._add_few(summed, cell)

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
        if self._stay_few(len(rows[0]), cell):
            self._few.setdefault(cell, []).append(rows[0].double())
            self._lender = None
            return
        grams = self._begin_grams(rows.device)
        self._add_few(grams, cell)
        self._have_grams.add(cell)
        grams[cell] += times_own_transpose(rows.double().mT)

    def _stay_few(self, more: int, cell: int) -> bool:
        """Whether so many more rows of a cell leave it with few."""
        if self.blocks > 1 or cell in self._have_grams:
            return False
        return self._is_few(more + sum(len(rows) for rows in self._few.get(cell, [])))

    def _is_few(self, rows: int) -> bool:
        return FEW * rows <= self.width

    def _add_few(self, grams: Tensor, cell: int) -> None:
        """Turn the rows of a cell, that were few until now, into a part of its Gram matrix."""
        for rows in self._few.pop(cell, []):
            grams[cell] += times_own_transpose(rows.mT)

    @property
    def is_float64(self) -> bool:
        """Whether rows came in float64."""
        return self._float64

    def grams_of_cells(self) -> Tensor:
        """(cells, blocks, width, width) float64: the Gram matrices so far."""
        device = next((parts[0].device for parts in self._few.values()), torch.device("cpu"))
        grams = self._begin_grams(device if self._grams is None else self._grams.device)
        for cell in list(self._few):
            self._add_few(grams, cell)
        self._have_grams.update(range(self.grouping.cells))
        return grams

    def take_grams(self, grams: Tensor) -> None:
        """Take other Gram matrices: those of several processes together."""
        self._grams, self._lender, self._spectra = grams, None, None
        self._few.clear()
        self._have_grams.update(range(self.grouping.cells))

    def triangles(self) -> Tensor:
        """(cells, blocks, width, width) float64: rows with the same Gram matrices, zeros below what there are."""
        found = torch.zeros((self.grouping.cells, self.blocks, self._block_width, self._block_width)).double()
        for cell, parts in enumerate(self._triangles):
            for rows in parts:
                reduced = triangle(rows)
                found[cell, :, : reduced.shape[1]] = reduced
        return found

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
        other._few = {cell: list(parts) for cell, parts in self._few.items()}
        other._have_grams = set(self._have_grams)
        return other

    @property
    def numbers(self) -> int:
        """How many numbers are held, those that are lent not counted."""
        held = [part.numel() for parts in (*self._triangles, *self._few.values()) for part in parts]
        return sum(held) + (0 if self._grams is None or self._lender is not None else self._grams.numel())

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
        if self._few:
            whole_rows = self.copied()
            summed = whole_rows._begin_grams(next(iter(self._few.values()))[0].device)
            for cell in list(whole_rows._few):
                whole_rows._add_few(summed, cell)
            return whole_rows.grams()
        if self._float64:
            whole = torch.stack([self._gram_of_triangles(parts) for parts in self._triangles])
        elif self._grams is None:
            whole = torch.zeros(self.grouping.cells, self.blocks, *(self._block_width,) * 2, dtype=torch.float64)
        else:
            whole = self._grams
        return torch.stack([torch.block_diag(*blocks) for blocks in self.grouping.sums(whole)])

    def _gram_of_triangles(self, parts: list[Tensor]) -> Tensor:
        """(blocks, width, width): one cell's Gram matrix."""
        if not parts:
            return torch.zeros(self.blocks, *(self._block_width,) * 2, dtype=torch.float64)
        joined = torch.cat(parts, dim=1)
        return times_own_transpose(joined.mT)

    def _of_grams(self) -> Tensor:
        if self._few:
            return torch.stack([self._of_short_side(members) for members in self.grouping.members])
        if self._grams is None:
            return torch.zeros(self.grouping.reported, self.blocks, self._block_width, dtype=torch.float64)
        return of_gram(self.grouping.sums(self._grams))

    def _of_short_side(self, members: Tensor) -> Tensor:
        """(1, width): of the rows of some cells, by the Gram matrix along the shorter of their sides."""
        cells = members.nonzero()[:, 0].tolist()
        parts = [part for cell in cells for part in self._few.get(cell, [])]
        summed = [self._grams[cell] for cell in cells if cell in self._have_grams and self._grams is not None]
        if not parts and not summed:
            return torch.zeros(1, self.width, dtype=torch.float64)
        rows = torch.cat(parts) if parts else summed[0].new_zeros((0, self.width))
        if not summed and self._is_few(len(rows)):
            return padded(of_gram(times_own_transpose(rows)[None]), self.width)
        gram = torch.stack(summed).sum(0) if summed else rows.new_zeros((1, self.width, self.width))
        return of_gram(gram + times_own_transpose(rows.mT))

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
