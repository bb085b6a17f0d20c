"""What a record takes over from those before it, and a checkpoint must hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autospec.recording.epoch_sums import EpochSums
from autospec.recording.leading_spectra import leading_spectra
from autospec.recording.listening import Listening
from autospec.recording.measured_floor import MeasuredFloor
from autospec.recording.previous_subspaces import EarlierSubspaces
from autospec.recording.previous_weights import PreviousWeights
from autospec.recording.recording_request import RecordingRequest
from autospec.spectra.constant_rows import ConstantRows
from autospec.spectra.registered import WEIGHT
from autospec.store.schema import SUBSPACE


class PreviousRecords:
    """What is known from earlier records.

    Args:
        request: what is recorded.
        listening: to the weights whose earlier values are kept.
        floor: measures the noise floor; None where it is computed.

    Attributes:
        subspaces: of every layer, at the last record.
        weights: at the last record.
        leading: what certifies leading singular values from the record before; None where all are computed.
        floor: as given; between measurements it is carried on.
        constant: rows of activations that are the same at every record.
    """

    def __init__(self, request: RecordingRequest, listening: Listening, floor: MeasuredFloor | None) -> None:
        settings = request.settings
        self.subspaces = EarlierSubspaces(wanted=SUBSPACE in settings.statistics)
        # frozen weights too: one may be trained later, and then there must be an earlier value
        self.weights = PreviousWeights(listening.watched, any(WEIGHT in one.needs for one in request.statistics))
        self.leading = leading_spectra(settings)
        self.floor = floor
        self.constant = ConstantRows()

    def replace(self, sums: EpochSums, epoch: int) -> None:
        """A record has been made of sums: the next one is compared with it."""
        self.subspaces.replace(sums, epoch)
        self.weights.replace(epoch)

    def forget(self, epoch: int) -> None:
        """Forget what is of that epoch or a later one: those are recorded anew."""
        self.subspaces.forget(epoch)
        if self.leading is not None:
            self.leading.forget(epoch)
        self.weights.forget(epoch)
        if self.floor is not None:
            self.floor.forget(epoch)

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        leading = {} if self.leading is None else {"leading": self.leading.state_dict()}
        floor = {} if self.floor is None else self.floor.state_dict()
        return {
            **leading,
            "subspaces": self.subspaces.state_dict(),
            "weights": self.weights.state_dict(),
            "floor": floor,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it from a checkpoint; what one of an earlier version lacks begins anew."""
        self.subspaces.load_state_dict(state.get("subspaces", {}))
        if self.leading is not None:
            self.leading.load_state_dict(state.get("leading", {}))
        self.weights.load_state_dict(state.get("weights", {}))
        if self.floor is not None:
            self.floor.load_state_dict(state.get("floor", {}))
