"""Who may use a recorder, and when: one process, one batch at a time, engines that stand in for the model alone."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from autospec.capture.engines import HOOKS
from autospec.errors import AutoSpecError, AutoSpecWarning


class Access:
    """The right to use a recorder of a model: until it is closed, and in the process that made it.

    Args:
        model: the model, which stands inside its wrapper if it has one.
        engine: the name of the recorder's engine.
        path: the file that the recorder writes, or None.

    Attributes:
        engine: as given.
        is_closed: whether the recorder is closed.
    """

    def __init__(self, model: nn.Module, engine: str, path: Path | None) -> None:
        self.engine = engine
        self.is_closed = False
        self._path = path
        self._unclosed: weakref.finalize | None = None
        self._model = weakref.ref(model)
        self._process = os.getpid()
        self._turn = threading.Lock()

    def check_open(self) -> None:
        """Refuse a call after the recorder was closed, or in a fork.

        Raises:
            AutoSpecError: In either.
        """
        if self.is_closed:
            raise AutoSpecError("the recorder is closed; SpectralRecorder(..., resume=True) goes on with its file")
        self.check_process()

    def enter(self) -> None:
        """Begin a batch: from the first on something is lost where the recorder is dropped before it is closed."""
        self.check_open()
        if self._unclosed is None:
            self._unclosed = weakref.finalize(self, _say_unclosed, self._path)

    def close(self) -> None:
        """Nothing is lost any more, and nothing can be recorded."""
        self.check_process()
        self.is_closed = True
        if self._unclosed is not None:
            self._unclosed.detach()

    def check_process(self) -> None:
        """Refuse another process than the one that made the recorder: a fork would write over its file.

        Raises:
            AutoSpecError: In a fork.
        """
        if os.getpid() != self._process:
            raise AutoSpecError(
                f"the recorder belongs to process {self._process}, and this is a fork of it, {os.getpid()}: record "
                "there, or make the recorder here"
            )

    @contextlib.contextmanager
    def one_batch(self) -> Iterator[None]:
        """A context for one batch, which no other batch of the recorder may overlap, in this thread or another.

        Raises:
            AutoSpecError: Another is open, or one of another recorder whose engine, or ours, stands in for the model.
        """
        if not self._turn.acquire(blocking=False):
            raise AutoSpecError(
                "recorder.batch(...) is already open, here or in another thread; one batch at a time "
                "(recorder.rewind(recorder.epoch) gives up one that an exception left open)"
            )
        try:
            self._refuse_overlap()
            _in_batch.add(self)
            yield
        finally:
            _in_batch.discard(self)
            self._turn.release()

    def _refuse_overlap(self) -> None:
        for other in list(_in_batch):
            engine = next((one for one in (self.engine, other.engine) if one != HOOKS), None)
            if engine is not None and self._weights() & other._weights():
                raise AutoSpecError(
                    f"another recorder of this model is inside its batch, and engine={engine!r} stands in for the "
                    "model: record with one after the other, or both with engine='hooks'"
                )

    def _weights(self) -> set[int]:
        model = self._model()
        return set() if model is None else {id(parameter) for parameter in model.parameters()}


def _say_unclosed(path: Path | None) -> None:
    """Said where a recorder is dropped, or the program ends, before ``close``."""
    if path is not None:
        warnings.warn(
            f"the recorder of {path} was never closed, so that its last epochs may be missing; use "
            "`with SpectralRecorder(...) as recorder:` or recorder.close()",
            AutoSpecWarning,
            stacklevel=2,
        )


_in_batch: weakref.WeakSet[Access] = weakref.WeakSet()
"""Of the recorders that are inside a batch."""
