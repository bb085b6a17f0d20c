"""Who may use a recorder, and when: one process, one batch at a time, engines that stand in for the model alone."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator

from torch import nn

from autospec.capture.engines import HOOKS
from autospec.errors import AutoSpecError


class Access:
    """The right to use a recorder of a model.

    Attributes:
        engine: The name of its engine.
    """

    def __init__(self, model: nn.Module, engine: str) -> None:
        self.engine = engine
        self._model = weakref.ref(model)
        self._process = os.getpid()
        self._turn = threading.Lock()

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


_in_batch: weakref.WeakSet[Access] = weakref.WeakSet()
"""Of the recorders that are inside a batch."""
