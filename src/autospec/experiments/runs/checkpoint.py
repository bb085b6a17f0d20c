"""Checkpoints: written whole or not at all, with a checksum, the one before kept beside."""

from __future__ import annotations

import io
import logging
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autospec.errors import DamagedFile, UnreadableFile
from autospec.experiments.runs.folder import RunFolder
from autospec.store.atomic import write_atomically
from autospec.store.opening import read_bytes

log = logging.getLogger(__name__)

State = dict[str, Any]

MAGIC = b"autospec checkpoint 1\n"
"""The beginning of a checkpoint; eight hexadecimal digits of CRC-32 and a line break follow, then what torch saves."""
HEADER_BYTES = len(MAGIC) + 9
EARLIER_MAGIC = b"PK"
"""The beginning of a checkpoint of an earlier version, without a checksum: an archive as torch saves it."""

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
        content = _checkpoint_bytes(state())  # torch reports a full disk as an internal error, not naming the disk
        with write_atomically(self._folder.checkpoint) as temporary:
            temporary.write_bytes(content)
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

        Raises:
            UnreadableFile: where a checkpoint cannot be read now, which says nothing of its content.
        """
        for path in (self._folder.checkpoint, self._folder.previous_checkpoint):
            if not path.exists():
                continue
            try:
                state = read_checkpoint(path)
            except UnreadableFile:  # it may be whole: the run must not begin anew
                raise
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


def read_checkpoint(path: Path) -> State:
    """Return the state that a checkpoint holds, its tensors on the CPU.

    Args:
        path: the checkpoint.

    Raises:
        UnreadableFile: where it cannot be read now, which says nothing of its content.
        DamagedFile: where its checksum is another; a damaged one of an earlier version raises whatever that leads to.
    """
    content = memoryview(read_bytes(path))
    if content[: len(EARLIER_MAGIC)] != EARLIER_MAGIC:
        if content[:HEADER_BYTES] != _header(content[HEADER_BYTES:]):
            raise DamagedFile(f"{path} is damaged: its checksum is another")
        content = content[HEADER_BYTES:]
    state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def _checkpoint_bytes(state: State) -> bytes:
    """A checkpoint's header and content."""
    stream = io.BytesIO(bytes(HEADER_BYTES))
    stream.seek(HEADER_BYTES)
    torch.save(state, stream)
    with stream.getbuffer() as content:  # let go of before the stream, which complains from Python 3.13 on
        content[:HEADER_BYTES] = _header(content[HEADER_BYTES:])
    return stream.getvalue()


def _header(content: memoryview) -> bytes:
    return MAGIC + f"{zlib.crc32(content):08x}\n".encode()


def random_state(device: str) -> State:
    """Return the state of torch's random generators: cpu, and cuda where the run is on a GPU, else None."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if device == "cuda" else None}


def restore_random_state(state: State) -> None:
    """Put torch's random generators back; a GPU's state is ignored where there is no GPU any more."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
