"""Checkpoints: written whole or not at all, the one before kept beside."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from typing import Any

import torch

from autospec.experiments.runs.folder import RunFolder
from autospec.store.atomic import write_atomically

log = logging.getLogger(__name__)

State = dict[str, Any]

SHARE = 0.02
"""The largest share of a run's time that checkpoints may take."""
SHORTEST_INTERVAL_S = 2.0
"""Seconds before the first checkpoint, whose cost cannot be known yet."""


class Checkpoints:
    """The checkpoints of a run, of which the newest two are kept.

    Args:
        folder: the run's.
        interval_s: seconds between two; None is as often as costs under two per cent of the run (``SHARE``).
    """

    def __init__(self, folder: RunFolder, interval_s: float | None = None) -> None:
        self._folder = folder
        self._interval_s = interval_s
        self._began_at = self._saved_at = time.monotonic()
        self._cost_s = 0.0
        self._costs_s = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to save again: the interval is over, or the run long enough to pay for one more."""
        now = time.monotonic()
        if self._interval_s is not None:
            return now - self._saved_at >= self._interval_s
        paid_for = now - self._began_at >= (self._costs_s + self._cost_s) / SHARE
        return paid_for and now - self._saved_at >= SHORTEST_INTERVAL_S

    def save(self, state: Callable[[], State]) -> None:
        """Save a state.

        Args:
            state: called to make it, so that its cost counts in.

        Raises:
            AutoSpecError: where the disk refuses; the checkpoint before stays.
        """
        started = time.monotonic()
        content = io.BytesIO()  # torch reports a full disk as an internal error, without a word about the disk
        torch.save(state(), content)
        with write_atomically(self._folder.checkpoint) as temporary:
            temporary.write_bytes(content.getbuffer())
            if self._folder.checkpoint.exists():
                self._folder.checkpoint.replace(self._folder.previous_checkpoint)
        self._saved_at = time.monotonic()
        self._cost_s = self._saved_at - started
        self._costs_s += self._cost_s

    def load(self, recorded: int) -> State | None:
        """Return the newest state that can be gone on from, or None.

        Args:
            recorded: the number of epochs that the spectra hold; a state beyond them is of spectra that were lost
                since, and is not used.

        Returns:
            What ``save`` was given. Where it is None, the checkpoints that are there are removed.
        """
        for path in (self._folder.checkpoint, self._folder.previous_checkpoint):
            if not path.exists():
                continue
            try:
                state: State = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # noqa: BLE001 (a damaged archive raises whatever its damage leads to)
                log.warning("%s is damaged (%s); falling back to the one before", path, type(error).__name__)
                continue
            if int(state["epoch"]) <= recorded:
                return state
            log.warning("%s is of an epoch whose spectra were lost; not used", path)
        self.remove()
        return None

    def remove(self) -> None:
        """Remove the checkpoints of a finished run."""
        for path in (self._folder.checkpoint, self._folder.previous_checkpoint):
            path.unlink(missing_ok=True)


def random_state(device: str) -> State:
    """Return the state of torch's random generators: cpu, and cuda where the run is on a GPU, else None."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if device == "cuda" else None}


def restore_random_state(state: State) -> None:
    """Put torch's random generators back; a GPU's state is ignored where there is no GPU any more."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
