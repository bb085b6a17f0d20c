"""The measured noise floor: every recorded batch runs in float64 too, and what differs is rounding."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from autospec.capture.layers import Layer
from autospec.errors import AutoSpecError
from autospec.recording.epoch_sums import EpochSums
from autospec.recording.twin import TwinBatch
from autospec.spectra.floor import measured_floors

FLOORS = ("measured", "formula")

Hearing = Callable[[nn.Module, EpochSums], contextlib.AbstractContextManager[None]]
"""Takes a model and sums, and returns a context in which the model's backward passes are added to the sums."""


class MeasuredFloor:
    """The sums of a record's batches in float64 at the same weights, which those in float32 are compared with.

    No measurement is carried from one record to another: where a residual is a few roundings large, and where a
    rectifier's argument is, the rounding of one step says little of that of the next.

    Args:
        model: the model that trains; it is copied at every batch, and left as it is.
        hearing: how the backward passes of the copy are added to sums.
    """

    def __init__(self, model: nn.Module, hearing: Hearing) -> None:
        self._model = model
        self._hearing = hearing
        self._precise: EpochSums | None = None
        self.refusal = ""

    def begin(self, sums: EpochSums) -> None:
        """Begin a record, with sums for its batches in float64."""
        self._precise = sums
        self.refusal = ""

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """A context for a batch, which repeats it in float64; ``refusal`` says where that cannot be done."""
        twin = None if self.refusal or self._precise is None else self._twin()
        if twin is None or self._precise is None:
            yield
            return
        with self._hearing(twin.twin, self._precise), twin.following():
            yield
        if not twin.heard:
            self.refusal = twin.refusal

    def settle(self, sums: EpochSums) -> None:
        """Give the sums of the record that ends their noise floors, unless a batch could not be repeated."""
        if self._precise is None or self.refusal:
            return
        for name, layer in sums.layers.items():
            precise = self._precise.layers[name]
            if (layer.arrived, layer.passes) != (precise.arrived, precise.passes):
                self.refusal = f"of layer {name!r} only some backward passes could be repeated"
            elif layer.arrived:
                layer.measured_floors = measured_floors(layer, precise)

    def _twin(self) -> TwinBatch | None:
        try:
            return TwinBatch(self._model)
        except AutoSpecError as error:
            self.refusal = str(error)
            return None


def check_floor(floor: str) -> None:
    """AutoSpecError for a way to the noise floor that does not exist."""
    if floor not in FLOORS:
        raise AutoSpecError(f"floor={floor!r}: allowed are {', '.join(FLOORS)}")


def measures(floor: str, layers: Sequence[Layer]) -> bool:
    """Whether a floor is to be measured: where it is asked for, of weights that are not all in float64 themselves."""
    return floor == "measured" and any(layer.parameter.dtype != torch.float64 for layer in layers)
