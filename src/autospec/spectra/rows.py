"""The spectrum of rows that arrive batch by batch and are never all in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from autospec.spectra.groups import Grouping
from autospec.spectra.singular import of_gram, on_capable_device, triangle


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

    def add(self, rows: Tensor, cell: int) -> None:
        """Add rows (blocks, n, width / blocks) of one cell; float64 rows must not follow float32 ones."""
        self._spectra = None
        rows = on_capable_device(rows)
        if self.blocks == 1:
            rows = rows.flatten(0, 1).unsqueeze(0)
        if rows.dtype == torch.float64:
            self._float64 = True
            self._triangles[cell].append(triangle(rows) if rows.shape[1] > rows.shape[2] else rows)
            if len(self._triangles[cell]) > 1:
                joined = torch.cat(self._triangles[cell], dim=1)
                self._triangles[cell] = [triangle(joined)]
            return
        rows = rows.double()
        if self._grams is None:
            shape = (self.grouping.cells, self.blocks, self._block_width, self._block_width)
            self._grams = torch.zeros(shape, dtype=torch.float64, device=rows.device)
        self._grams[cell] += rows.mT @ rows

    def spectra(self) -> Tensor:
        """(reported, width) float64: singular values of every reported group's rows, zeros beyond their rank."""
        if self._spectra is None:
            values = self._of_triangles() if self._float64 else self._of_grams()
            self._spectra = values.flatten(1).sort(dim=1, descending=True).values
        return self._spectra

    def _of_grams(self) -> Tensor:
        if self._grams is None:
            return torch.zeros(self.grouping.reported, self.blocks, self._block_width, dtype=torch.float64)
        grams = self.grouping.sums(self._grams)
        finite = grams.isfinite().flatten(2).all(-1)
        return of_gram(grams.where(finite[..., None, None], 0.0)).where(finite[..., None], torch.nan)

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
