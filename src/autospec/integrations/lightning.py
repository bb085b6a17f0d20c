"""A Lightning callback: ``Trainer(callbacks=[SpectraCallback("spectra.h5", groups=["HC", "SZ"], group=2)])``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autospec.errors import AutoSpecError
from autospec.integrations.libraries import require_library
from autospec.integrations.loop_recorder import EPOCH, STEP, LoopRecorder
from autospec.recording.batch import Batch
from autospec.recording.recorder import SpectralRecorder

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:  # under its other name, or not at all
        require_library("lightning", "pytorch_lightning")
        from pytorch_lightning import Callback

Where = str | int | Callable[[Any], Any]
"""Where a batch holds something: a key of a dict, a place in a tuple, or a function of the batch."""


class _Skipped(Exception):
    """A training step that computed no loss."""


class SpectraCallback(Callback):
    """Records the module that is trained; gradients that are accumulated, scaled or clipped are recorded right.

    With automatic optimization the loss is divided by ``accumulate_grad_batches``, and a closure may run several times
    (LBFGS); both are known. With manual optimization every backward pass of a step counts, and what a step multiplies
    its losses by is not known; the raw spectra are those of the gradients, whatever it does.

    Args:
        path: the spectra file.
        groups: names of the groups.
        group: where a batch holds the group of each of its samples.
        subject: where it holds whose each sample is, for ``permutations``.
        at: "epoch" or "step": what a record is; ``every=k`` takes every k-th.
        options: the other arguments of ``SpectralRecorder``.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        groups: Sequence[str],
        group: Where = "group",
        subject: Where | None = None,
        at: str = EPOCH,
        **options: Any,
    ) -> None:
        self._loop = LoopRecorder(path, at, {"groups": groups, **options})
        self._group, self._subject = group, subject
        self._batch: Batch | None = None
        self._passes = 0
        self._step = 0

    @property
    def recorder(self) -> SpectralRecorder:
        """The recorder while training; AutoSpecError before and after."""
        return self._loop.recorder

    @property
    def state_key(self) -> str:
        """Tells the state of this callback from that of another in a checkpoint."""
        return f"SpectraCallback[{self._loop.path}]"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to record, or go on from a checkpoint."""
        strategy = type(trainer.strategy).__name__
        if trainer.world_size > 1 and not _is_ddp(trainer.strategy):
            raise AutoSpecError(f"{strategy} in {trainer.world_size} processes is not recorded; allowed is 'ddp'")
        if trainer.strategy.handles_gradient_accumulation:
            raise AutoSpecError(f"{strategy} accumulates gradients by itself, out of sight of the recorder")
        is_wrapped = trainer.strategy.model is not pl_module  # whose calls are redirected to training_step
        self._loop.begin(pl_module, getattr(trainer.precision_plugin, "scaler", None), is_wrapped)
        self._step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Open the recorder's batch."""
        self._passes = 0
        whose = {} if self._subject is None else {"subject": _taken(batch, self._subject, "subject")}
        self._batch = self._loop.open(_taken(batch, self._group, "group"), **whose)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        """A step that computes no loss makes no pass."""
        self._passes += 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Close the recorder's batch, and end the record where its time has come."""
        automatic = pl_module.automatic_optimization
        if automatic and not self._passes:
            self._loop.drop_batch(_Skipped())
        else:
            self._close(outputs, trainer.accumulate_grad_batches if automatic else 0)
        if self._loop.at == STEP and trainer.global_step > self._step:
            self._loop.record(trainer.global_step)
            self._step = trainer.global_step
        if self._loop.at == EPOCH and trainer.is_last_batch:
            self._loop.record()  # before validation, whose end may save a checkpoint

    def _close(self, outputs: Any, accumulated: int) -> None:
        """``accumulated``: of how many batches the loss is one; 0 where the step's losses are its own business."""
        assert self._batch is not None
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if accumulated:
            self._batch.share = 1 / accumulated
            loss = None if loss is None else loss * accumulated
        self._loop.close_batch(loss)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the record of an epoch that ended before its last batch."""
        if self._loop.at == EPOCH:
            self._loop.record()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the file."""
        self._loop.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the file with what was recorded."""
        self._loop.end(exception)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on."""
        return self._loop.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint when training starts."""
        self._loop.state = state_dict or None


def _is_ddp(strategy: object) -> bool:
    """Whether a strategy has the whole model in each process and averages gradients, under either name of Lightning."""
    return any(kind.__name__ == "DDPStrategy" for kind in type(strategy).__mro__)


def _taken(batch: Any, where: Where, name: str) -> Any:
    """What a batch holds somewhere; AutoSpecError where it does not."""
    if callable(where):
        return where(batch)
    try:
        return batch[where]
    except (KeyError, IndexError, TypeError) as error:
        there = f"keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
        raise AutoSpecError(
            f"{name}={where!r}: the batch ({there}) has nothing there; say by SpectraCallback(..., {name}=...) where "
            f"it is: a key, a place, or a function of the batch"
        ) from error
