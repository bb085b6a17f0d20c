"""A recorder that somebody else's loop drives: batches are opened and closed by callbacks, records follow its clock."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autospec.errors import AutoSpecError, AutoSpecWarning
from autospec.recording.batch import Batch
from autospec.recording.recorder import SpectralRecorder

EPOCH, STEP = CLOCKS = ("epoch", "step")
"""When a record ends: with each epoch, or with each optimizer step."""


class LoopRecorder:
    """The recorder of one training, made when that begins.

    Args:
        path: the spectra file.
        at: "epoch" or "step": what a record is.
        options: the other arguments of ``SpectralRecorder``.
    """

    def __init__(self, path: str | Path | None, at: str, options: Mapping[str, Any]) -> None:
        if at not in CLOCKS:
            raise AutoSpecError(f"at={at!r}: a record is of an {EPOCH!r} or of an optimizer's {STEP!r}")
        for name in ("scaler", "reduction"):
            if name in options:
                raise AutoSpecError(f"{name}= is known from the trainer, and must not be given")
        self.path = path
        self.at = at
        self._options = dict(options)
        self._recorder: SpectralRecorder | None = None
        self._context: contextlib.AbstractContextManager[Batch] | None = None
        self._loss = torch.zeros(())
        self._batches = 0
        self.state: Mapping[str, Any] | None = None

    @property
    def recorder(self) -> SpectralRecorder:
        """The recorder; AutoSpecError before training began."""
        if self._recorder is None:
            raise AutoSpecError("training has not begun, so that nothing is recorded yet")
        return self._recorder

    @property
    def is_recording(self) -> bool:
        """Whether training has begun and has not ended."""
        return self._recorder is not None

    def begin(self, model: nn.Module, scaler: torch.amp.GradScaler | None, is_step: bool = False) -> None:
        """Training begins, or goes on from ``state``; ``is_step``: a call of the model is a whole training step."""
        options = {**self._options, "resume": True} if self.state is not None else self._options
        self._recorder = SpectralRecorder(model, self.path, scaler=scaler, **options)
        hooks = self._recorder._listening.hooks
        if is_step and hooks is not None:
            hooks.step = model
        if self.state is not None:
            self._recorder.load_state_dict(self.state["recorder"])
            if self.state["batches"]:
                warnings.warn(
                    f"training goes on in the middle of epoch {self._recorder.epoch}; its spectra are of the batches "
                    "from here on",
                    AutoSpecWarning,
                    stacklevel=2,
                )
            self.state = None
        self._batches = 0

    def open(self, group: Any, **arguments: Any) -> Batch:
        """A batch begins."""
        if isinstance(group, Tensor):
            group = group.to(next(self.recorder._model.parameters()).device)
        self._context = self.recorder.batch(group, **arguments)
        return self._context.__enter__()

    def close_batch(self, loss: Tensor | float | None = None) -> None:
        """A batch has ended well; ``loss`` is its own, for the mean of the record."""
        if self._context is None:
            return
        context, self._context = self._context, None
        context.__exit__(None, None, None)
        self._batches += 1
        self._loss = self._loss + (torch.nan if loss is None else torch.as_tensor(loss).detach().float().cpu())

    def drop_batch(self, error: BaseException) -> None:
        """A batch is left without being counted, by an exception of its own or of the loop's."""
        if self._context is None:
            return
        context, self._context = self._context, None
        with contextlib.suppress(type(error)):
            context.__exit__(type(error), error, error.__traceback__)

    def record(self, step: int | None = None) -> None:
        """A record ends, where there were batches."""
        if not self._batches:
            return
        loss = float(self._loss) / self._batches
        self.recorder.record(step, loss=None if loss != loss else loss)
        self._loss, self._batches = torch.zeros(()), 0

    def end(self, error: BaseException | None = None) -> None:
        """Training is over, by itself or by an exception; nothing where it was over already."""
        if self._recorder is None:
            return
        if error is not None:
            self.drop_batch(error)
        elif self.at == EPOCH:
            self.record()
        self._recorder.close(complete=error is None)
        self._recorder = None

    def state_dict(self) -> dict[str, Any]:
        """What goes on after the last record; batches since then are lost, and said when it goes on."""
        if self._recorder is None:
            return {}
        return {"recorder": self._recorder.state_dict(drop_open_record=True), "batches": self._batches}
