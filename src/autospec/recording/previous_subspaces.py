"""What a record is compared with: the subspaces at the record before, as far as a run still knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autospec.recording.epoch_sums import EpochSums
from autospec.spectra.subspace import Subspaces


class EarlierSubspaces:
    """Every layer's leading subspaces at the last record, kept from one record to the next where ``wanted``.

    A file holds angles, not vectors: a run that goes on from a checkpoint has them from there.
    """

    def __init__(self, wanted: bool) -> None:
        self.is_wanted = wanted
        self._epoch = -1
        self.of_layers: dict[str, Subspaces] = {}

    def replace(self, sums: EpochSums, epoch: int) -> None:
        """Take the subspaces of a record that has just been made."""
        if self.is_wanted:
            self._epoch, self.of_layers = epoch, sums.subspaces()

    def forget(self, epoch: int) -> None:
        """Forget them where they are of that epoch or a later one."""
        if self._epoch >= epoch:
            self._epoch, self.of_layers = -1, {}

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the tensors of every layer."""
        return {"epoch": self._epoch, "layers": {name: own.sides for name, own in self.of_layers.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them from a checkpoint; one of before they were kept has none."""
        self._epoch = int(state.get("epoch", -1))
        self.of_layers = {name: Subspaces(*sides) for name, sides in state.get("layers", {}).items()}
