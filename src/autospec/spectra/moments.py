"""What registered statistics may need beyond spectra: rows, their sums, and the norms of single samples' gradients."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import SampleGroups
from autospec.spectra.registered import ROW_SUMS, ROWS, SAMPLE_NORMS

MOST_NUMBERS = 2**27
"""So many numbers of rows are kept for one record of a layer: 1 GiB in float64."""


class Moments:
    """The sums of one weight's uses that are needed, cell by cell; None where they cannot be told.

    Rows are known of layers whose factors are rows of ``A`` themselves (linear and recurrent ones), and not of those
    that hand over something with the same singular values (convolutions). A sample's gradient is known where the weight
    is used once in a batch: the norm of a sum is no sum of norms.
    """

    def __init__(self, needs: Collection[str], cells: int) -> None:
        self._needs = frozenset(needs) & {ROW_SUMS, ROWS, SAMPLE_NORMS}
        self._batch = -1
        self.row_sums: Tensor | None = None
        self.squared_sample_norms: Tensor | None = None
        self.samples = torch.zeros(cells, dtype=torch.int64)
        self._rows: list[Tensor] = []
        self._row_cells: list[Tensor] = []
        self.unknown: dict[str, str] = {}

    def add(self, factors: GradientFactors, groups: SampleGroups, batch: int) -> None:
        """Add one use of the weight, in the ``batch``-th batch of the record."""
        if self._needs & {ROW_SUMS, ROWS}:
            self._add_rows(factors, groups)
        if SAMPLE_NORMS in self._needs:
            self._add_norms(factors, groups, batch)

    def add_elsewhere(self) -> None:
        """Another module uses the weight as well."""
        self.unknown[SAMPLE_NORMS] = "the weight is used in several places"

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """(rows, width) and the cell of each, (rows,)."""
        return torch.cat(self._rows), torch.cat(self._row_cells)

    def summands(self, width: int, share: float) -> list[Tensor]:
        """What adds up over processes, of a loss that counts ``share``: samples, sums of rows, of squared norms."""
        found = [self.samples] if self._needs else []
        if ROW_SUMS in self._needs:
            zeros = torch.zeros((len(self.samples), width), dtype=torch.float64)
            found.append(zeros if self.row_sums is None else self.row_sums)
        if SAMPLE_NORMS in self._needs:
            zeros = torch.zeros(len(self.samples), dtype=torch.float64)
            found.append(zeros if self.squared_sample_norms is None else self.squared_sample_norms * share**2)
        return found

    def take(self, added: Sequence[Tensor], unknown: dict[str, str]) -> None:
        """Take the sums of several processes, and what one of them could not tell."""
        left = list(added)
        self.samples, self.unknown = left.pop(0) if self._needs else self.samples, unknown
        if ROW_SUMS in self._needs:
            self.row_sums = left.pop(0)
        if SAMPLE_NORMS in self._needs:
            self.squared_sample_norms = left.pop(0)

    def _add_rows(self, factors: GradientFactors, groups: SampleGroups) -> None:
        if type(factors) is not GradientFactors or factors.blocks > 1 or factors.transposed or factors.has_padding:
            self.unknown[ROWS] = self.unknown[ROW_SUMS] = "its layer does not hand over its rows one by one"
            return
        rows = factors.activation[0].double()
        if ROW_SUMS in self._needs:
            sums = groups.sums(rows.sum(1))
            self.row_sums = sums if self.row_sums is None else self.row_sums + sums
        if ROWS in self._needs:
            self._rows.append(rows.flatten(0, 1))
            self._row_cells.append(groups.of_sample.repeat_interleave(rows.shape[1]))
            if sum(part.numel() for part in self._rows) > MOST_NUMBERS:
                raise AutoSpecError(
                    f"more than {MOST_NUMBERS:,} numbers of rows between two records, which a statistic that needs "
                    "'rows' keeps; record smaller batches or fewer layers (layers=[...])"
                )

    def _add_norms(self, factors: GradientFactors, groups: SampleGroups, batch: int) -> None:
        if batch == self._batch:
            self.unknown[SAMPLE_NORMS] = "the weight is used several times in a batch"
        self._batch = batch
        self.samples += torch.tensor(groups.counts)
        sums = groups.sums(squared_sample_norms(factors))
        so_far = self.squared_sample_norms
        self.squared_sample_norms = sums if so_far is None else so_far + sums


def squared_sample_norms(factors: GradientFactors) -> Tensor:
    """(n,) float64: ``‖Δ_iᵀ A_i‖²`` of each sample i, the squared norm of its own part of the gradient.

    With one row a sample that is ``‖a_i‖² ‖δ_i‖²``.
    """
    if type(factors) is GradientFactors and factors.blocks == 1 and factors.positions == 1:
        activation, adjoint = factors.squared_norms()
        return activation * adjoint
    one = torch.arange(factors.samples, device=factors.device).split(1)
    return torch.stack([factors.product(sample).double().square().sum() for sample in one])
