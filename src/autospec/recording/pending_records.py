"""Records whose spectra are computed together: eigenvalue problems of one size are solved in one call."""

from __future__ import annotations

from autospec.recording.epoch_sums import EpochSums, settle
from autospec.recording.leading_spectra import LeadingSpectra
from autospec.store.schema import EPOCH, RECORDED_EPOCHS
from autospec.store.table import SpectraTable

MOST_NUMBERS = 2**20
"""So many numbers of gradients wait at most: 4 MiB of float32."""

MOST_RECORDS = 16
"""So many records wait at most."""


class PendingRecords:
    """The sums of the last records, whose spectra are not computed yet.

    Args:
        table: where the records go, in order, once they are settled.
        leading: so many indices are stored; None is all.
        certified: has leading singular values from those of the record before.
        may_wait: whether all that is stored can be had later; False where a statistic looks at more than the sums, or
            at the record before.
    """

    def __init__(
        self, table: SpectraTable, leading: int | None, certified: LeadingSpectra | None, may_wait: bool
    ) -> None:
        self._table = table
        self._leading = leading
        self._certified = certified
        self._may_wait = may_wait
        self._waiting: list[tuple[int, EpochSums]] = []
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, label: int, sums: EpochSums) -> None:
        """Take the sums of a record, to which nothing is added any more; they may be settled at once."""
        self._waiting.append((label, sums))
        self._numbers += sums.numbers
        is_full = self._numbers >= MOST_NUMBERS or len(self) >= MOST_RECORDS
        if is_full or not self._may_wait or not sums.can_wait:
            self.settle()

    def settle(self) -> None:
        """Compute the spectra of all records that wait, and put them into the table."""
        waiting, self._waiting, self._numbers = self._waiting, [], 0
        if self._certified is None:
            settle([sums for _, sums in waiting])
        for label, sums in waiting:
            found = sums.measured(label, self._leading, self._certified)
            self._table.append({RECORDED_EPOCHS: label, **found}, EPOCH)
