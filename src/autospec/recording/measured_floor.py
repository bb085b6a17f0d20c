"""The measured noise floor: a record's batches run in float64 too, and what differs is rounding."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autospec.capture.layers import Layer
from autospec.errors import AutoSpecError
from autospec.recording.epoch_sums import EpochSums
from autospec.recording.joint_epoch import agreed_refusal, join
from autospec.recording.processes import Processes
from autospec.recording.twin import TwinBatch
from autospec.spectra.floor import carried_floors, floor_ratios, formula_floors, measured_floors
from autospec.spectra.layer_sums import LayerSums
from autospec.spectra.settings import CALIBRATED, FORMULA

LAST = 2
"""A carried floor rests on so many of the last measurements."""

Hearing = Callable[[nn.Module, EpochSums], contextlib.AbstractContextManager[None]]
"""Takes a model and sums, and returns a context in which the model's backward passes are added to the sums."""

Ratios = dict[str, dict[str, Tensor]]
"""Measured floors over the formula's, (reported,) each, by layer and quantity."""


class MeasuredFloor:
    """The sums of a record's batches in float64 at the same weights, which those in float32 are compared with.

    A calibrated floor is measured at the records of ``is_measured_at`` alone. At those between, it is the formula's
    times twice the larger ratio of the last two measurements to the formula (``carried_floors``).

    Args:
        model: the model that trains; it is copied at every measured batch, and left as it is.
        hearing: how the backward passes of the copy are added to sums.
        calibrated: whether floors are carried from one record to others; else every record is measured.
    """

    def __init__(self, model: nn.Module, hearing: Hearing, calibrated: bool = False) -> None:
        self._model = model
        self._hearing = hearing
        self._calibrated = calibrated
        self._precise: EpochSums | None = None
        self._tried = False
        self._measurements: list[tuple[int, Ratios]] = []
        self.refusal = ""

    def begin(self, number: int, new_sums: Callable[[], EpochSums]) -> None:
        """Begin the record of a number from 0, with sums for its batches in float64 where it is measured."""
        is_due = not self._calibrated or not self._tried or is_measured_at(number)
        self._precise = new_sums() if is_due else None
        self.refusal = ""

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """A context for a batch, which repeats it in float64; ``refusal`` says where that cannot be done."""
        twin = None if self.refusal or self._precise is None else self._twin()
        if twin is None or self._precise is None:
            yield
            return
        is_the_batchs = False
        try:
            with self._hearing(twin.twin, self._precise):
                try:
                    with twin.following():
                        yield
                except BaseException:
                    is_the_batchs = True
                    raise
        except AutoSpecError as error:
            if is_the_batchs:
                raise
            self.refusal = str(error)  # the copy's own: the batch itself is recorded
        if not twin.heard:
            self.refusal = twin.refusal

    def join(self, processes: Processes, share: float) -> None:
        """Add up what several processes repeated of the record's batches; refused in one, it is in all."""
        self.refusal = agreed_refusal(self.refusal, processes)
        if self._precise is not None and not self.refusal:
            join(self._precise, processes, share)

    def settle(self, sums: EpochSums, epoch: int) -> None:
        """Give the sums of the record that ends, at an epoch, their noise floors."""
        if self._precise is not None:
            self._tried = True
            self._measure(sums, self._precise, epoch)
        if self._calibrated and self._measurements:
            self._carry(sums)

    def _measure(self, sums: EpochSums, precise_sums: EpochSums, epoch: int) -> None:
        """Measure the floors, unless a batch could not be repeated."""
        if self.refusal:
            return
        ratios: Ratios = {}
        for name, layer in sums.layers.items():
            precise = precise_sums.layers[name]
            if (layer.arrived, layer.passes) != (precise.arrived, precise.passes):
                self.refusal = f"of layer {name!r} only some backward passes could be repeated"
            elif layer.arrived:
                layer.measured_floors = measured_floors(layer, precise)
                if self._calibrated:
                    ratios[name] = floor_ratios(layer.measured_floors, formula_floors(layer))
        if ratios and not self.refusal:
            self._measurements.append((epoch, ratios))

    def _carry(self, sums: EpochSums) -> None:
        """Carry floors from the last measurements to layers whose own could not be, or were not, measured."""
        for name, layer in sums.layers.items():
            ratios = [of_layers[name] for _, of_layers in self._measurements if name in of_layers][-LAST:]
            if layer.arrived and ratios and not layer.floors_are_measured:
                layer.carry_floors = partial(_carried, ratios=ratios)

    def forget(self, epoch: int) -> None:
        """Forget the measurements of that epoch and later ones."""
        self._measurements = [entry for entry in self._measurements if entry[0] < epoch]

    def state_dict(self) -> dict[str, Any]:
        """What later floors rest on: few numbers, since measurements become rare."""
        return {"tried": self._tried, "measurements": list(self._measurements)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it from a checkpoint; one of before floors were carried has none, and the next record is measured."""
        self._tried = bool(state.get("tried", False))
        self._measurements = [(int(epoch), ratios) for epoch, ratios in state.get("measurements", [])]

    def _twin(self) -> TwinBatch | None:
        try:
            return TwinBatch(self._model)
        except AutoSpecError as error:
            self.refusal = str(error)
            return None


def _carried(layer: LayerSums, ratios: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The floors of a layer's sums from those of earlier records."""
    return carried_floors(formula_floors(layer), ratios)


def is_measured_at(number: int) -> bool:
    """Whether a calibrated floor is measured at the record of a number: 0, 1, 2, 3, 5, 8, 12, 18, 27 and so on.

    Each is the first at or after 1.5 times the one before; of 1000 records 17 are measured.
    """
    measured = 0
    while measured < number:
        measured = max(measured + 1, (3 * measured + 1) // 2)
    return measured == number


def measured_floor(floor: str, model: nn.Module, layers: Sequence[Layer], hearing: Hearing) -> MeasuredFloor | None:
    """What measures a recorder's noise floor; None where the formula is asked for, or all weights are in float64."""
    if floor == FORMULA or all(layer.parameter.dtype == torch.float64 for layer in layers):
        return None
    return MeasuredFloor(model, hearing, floor == CALIBRATED)
