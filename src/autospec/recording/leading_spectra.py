"""Leading singular values from record to record: by block iteration where it is certified, exactly elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autospec.spectra.gradient import GradientSum
from autospec.spectra.leading import Leading, block_round, block_width, of_exact, starting_block
from autospec.spectra.settings import RecorderSettings

ROUNDS = 4
"""So many rounds are tried at a record: more would not be cheaper than decomposing."""

LONGEST_PAUSE = 32
"""A layer that could not be certified is decomposed at the next 1, 2, 4, ... records, at most so many."""


@dataclass
class _Track:
    """What is known of a layer: the block of every group, and for how many records it is left alone."""

    block: Tensor | None = None
    pause: int = 0
    next_pause: int = 1


class LeadingSpectra:
    """The first ``leading`` singular values of every layer and group, each with a bound.

    Args:
        leading: how many.
        tolerance: how large a bound may be, in units of the group's first singular value.
    """

    def __init__(self, leading: int, tolerance: float) -> None:
        self.leading = leading
        self.tolerance = tolerance
        self._epoch = -1
        self._tracks: dict[str, _Track] = {}

    def settle(self, layer: str, gradient: GradientSum, epoch: int) -> Tensor:
        """Give a layer's summed gradient its leading spectra; their bounds, (reported, k)."""
        self._epoch = epoch
        track = self._tracks.setdefault(layer, _Track())
        matrices = gradient.unsettled
        if matrices is None:  # few rows, float64: decomposed without forming a Gram matrix
            return of_exact(gradient.spectra(), self.leading).bounds
        found = self._certified(gradient.grouping.sums(matrices.double()), track)
        if found is None:
            found = self._exact(gradient, track)
        gradient.take_spectra(found.values)
        return found.bounds

    def _certified(self, matrices: Tensor, track: _Track) -> Leading | None:
        """What block iteration certifies; None where it does not reach the tolerance."""
        if track.block is None or not bool(matrices.sum().isfinite()):
            return None
        tall = matrices if matrices.shape[-2] >= matrices.shape[-1] else matrices.mT
        squared = torch.linalg.vector_norm(tall, dim=(-2, -1)).square()
        for _ in range(ROUNDS):
            found, track.block = block_round(tall, squared, track.block, self.leading)
            if found.holds(self.tolerance):
                track.next_pause = 1
                return found
        return None

    def _exact(self, gradient: GradientSum, track: _Track) -> Leading:
        """All values, and from them whether and with which block the next record is worth a try."""
        spectra = gradient.spectra()
        failed, track.block = track.block, None
        if failed is not None:
            track.pause, track.next_pause = track.next_pause, min(2 * track.next_pause, LONGEST_PAUSE)
        elif track.pause:
            track.pause -= 1
        width = None if track.pause or not bool(spectra.isfinite().all()) else block_width(spectra, self.leading)
        if width is not None:
            track.block = starting_block(tuple(spectra.shape), width, spectra)
        return of_exact(spectra, self.leading)

    def forget(self, epoch: int) -> None:
        """Forget what is known where it is of that epoch or a later one."""
        if self._epoch >= epoch:
            self._epoch, self._tracks = -1, {}

    def state_dict(self) -> dict[str, Any]:
        """What the next record rests on: with it a run that goes on gives the same numbers."""
        tracks = {name: (track.block, track.pause, track.next_pause) for name, track in self._tracks.items()}
        return {"epoch": self._epoch, "tracks": tracks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it from a checkpoint; without one, the next record is decomposed."""
        self._epoch = int(state.get("epoch", -1))
        self._tracks = {name: _Track(*track) for name, track in state.get("tracks", {}).items()}


def leading_spectra(settings: RecorderSettings) -> LeadingSpectra | None:
    """What certifies leading singular values, where a recorder's settings ask for it."""
    if settings.tolerance is None or settings.leading is None:
        return None
    return LeadingSpectra(settings.leading, settings.tolerance)
