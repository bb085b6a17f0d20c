"""The Hugging Face Trainer: ``record_trainer(trainer, "spectra.h5", groups=["HC", "SZ"])`` before ``trainer.train()``.

The data set has a column with the group of each sample. The collator takes it out of what the model gets, and a batch
is recorded around the Trainer's training step, where all that it does to the loss is known: a callback of the Trainer
sees neither.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from autospec.capture.agreement import random_state_kept
from autospec.capture.kept_state import state_kept
from autospec.errors import AutoSpecError
from autospec.integrations.libraries import require_library
from autospec.integrations.loop_recorder import EPOCH, STEP, LoopRecorder
from autospec.recording.recorder import SpectralRecorder

for library in ("transformers", "accelerate"):
    require_library("transformers", library)

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments  # noqa: E402

GROUP, SUBJECT = "autospec_group", "autospec_subject"
"""Under which keys a batch holds what the collator took out."""
STATE_FILE = "autospec_state.pt"
CLOSE = 0.05
"""A ratio of two losses is whole within this: they may be in half precision."""
IGNORED = -100
"""The label of a token that is not counted."""


def record_trainer(
    trainer: Trainer,
    path: str | Path | None = None,
    *,
    groups: Sequence[str],
    column: str = "group",
    subject_column: str | None = None,
    at: str = EPOCH,
    **options: Any,
) -> TrainerRecording:
    """Record what a Trainer trains.

    Args:
        trainer: the Trainer, before ``train``; also one of a subclass with a loss of its own.
        path: the spectra file.
        groups: names of the groups.
        column: the column of the training set that holds the group of each sample, an index into groups.
        subject_column: the column that says whose each sample is, for ``permutations``.
        at: "epoch" or "step": what a record is; ``every=k`` takes every k-th.
        options: the other arguments of ``SpectralRecorder``.

    Returns:
        The recording, whose ``recorder`` is there while training.

    Raises:
        AutoSpecError: for what cannot be recorded: several devices of one process, a compiled model, weights in pieces.
    """
    arguments = trainer.args
    if arguments.n_gpu > 1:
        raise AutoSpecError(
            f"n_gpu={arguments.n_gpu}: one process on several devices is not recorded; start one for each "
            "(torchrun --nproc_per_node ...)"
        )
    if arguments.torch_compile:
        raise AutoSpecError("torch_compile=True: the Trainer compiles another model than the one that is recorded")
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise AutoSpecError("DeepSpeed and FSDP split the weights, which is not recorded")
    columns = {GROUP: column} | ({} if subject_column is None else {SUBJECT: subject_column})
    recording = TrainerRecording(trainer, LoopRecorder(path, at, {"groups": groups, **options}), columns)
    trainer.add_callback(recording)
    return recording


class TrainerRecording(TrainerCallback):
    """Stands around the training step of one Trainer; made by ``record_trainer``."""

    def __init__(self, trainer: Trainer, loop: LoopRecorder, columns: Mapping[str, str]) -> None:
        self._trainer = trainer
        self._loop = loop
        self._columns = columns
        self._number_is_used: bool | None = None
        self._skips_first: bool | None = None
        self._train_step = trainer.training_step
        self._train_loader = trainer.get_train_dataloader
        trainer.training_step = self._recorded_step
        trainer.get_train_dataloader = self._loader_with_groups

    @property
    def recorder(self) -> SpectralRecorder:
        """The recorder while training; AutoSpecError before and after."""
        return self._loop.recorder

    def _loader_with_groups(self) -> Any:
        """The Trainer's own loader of the training set, which keeps our columns up to the collator."""
        trainer, arguments = self._trainer, self._trainer.args
        collator, removes = trainer.data_collator, arguments.remove_unused_columns
        kept = None
        if removes:
            trainer._set_signature_columns_if_needed()
            kept = frozenset(trainer._signature_columns)
        trainer.data_collator = GroupCollator(collator, self._columns, kept)
        arguments.remove_unused_columns = False
        try:
            return self._train_loader()
        finally:
            trainer.data_collator, arguments.remove_unused_columns = collator, removes

    def _recorded_step(self, model: Any, inputs: dict[str, Any], *args: Any, **keywords: Any) -> Tensor:
        taken = {key: inputs.pop(key) for key in self._columns if key in inputs}
        if GROUP not in taken:
            raise AutoSpecError("the batch holds no groups; call record_trainer(trainer, ...) before trainer.train()")
        items = self._counted_items(model, inputs)
        number = args[0] if args else keywords.get("num_items_in_batch")
        subject = {"subject": taken[SUBJECT]} if SUBJECT in taken else {}
        share = self._share(model, inputs, items, number)
        try:
            self._loop.open(taken[GROUP], weight=items, share=share, **subject)
            loss = self._train_step(model, inputs, *args, **keywords)
            self._loop.close_batch(loss)
        except BaseException as error:
            self._loop.end(error)
            raise
        return loss

    def _counted_items(self, model: Any, inputs: dict[str, Any]) -> Tensor | None:
        """(n,) how many labels of each sample enter the loss; None where labels are not counted one by one."""
        name = "shift_labels" if "shift_labels" in inputs else "labels"
        labels = inputs.get(name)
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
            return None
        if labels.dim() > 1 and name == "labels":
            if self._skips_first is None:
                self._skips_first = self._is_first_skipped(model, inputs, labels)
            labels = labels[:, 1:] if self._skips_first else labels
        counted = (labels != IGNORED).reshape(len(labels), -1).sum(1)
        return counted if bool(counted.any()) else None

    def _is_first_skipped(self, model: Any, inputs: dict[str, Any], labels: Tensor) -> bool:
        """Whether the loss predicts the next token, so that the first label of each sample is nobody's target."""
        without = labels.clone()
        without[:, 0] = IGNORED
        return self._loss(model, inputs) == self._loss(model, {**inputs, "labels": without})

    def _share(self, model: Any, inputs: dict[str, Any], items: Tensor | None, number: Any) -> float:
        """What the mean loss of this batch is multiplied by, as ``Trainer.compute_loss`` and its step decide it."""
        return self._share_of_step(model, inputs, items, number) * self._process_factor(number)

    def _process_factor(self, number: Any) -> int:
        """What ``Trainer.compute_loss`` multiplies by where items are counted over all processes, for their average."""
        trainer = self._trainer
        counts = trainer.model_accepts_loss_kwargs or trainer.compute_loss_func is not None
        averages = getattr(trainer.args, "average_tokens_across_devices", False) and counts and number is not None
        return trainer.accelerator.num_processes if averages else 1

    def _share_of_step(self, model: Any, inputs: dict[str, Any], items: Tensor | None, number: Any) -> float:
        trainer = self._trainer
        is_scaled = getattr(trainer, "loss_is_scaled_for_ga", None)
        if is_scaled is None:
            is_scaled = (trainer.model_accepts_loss_kwargs and number is not None) or (
                trainer.compute_loss_func is not None
            )
        if not is_scaled:
            return 1 / trainer.current_gradient_accumulation_steps
        if items is None or number is None or float(items.sum()) == float(number):
            return 1.0
        return float(items.sum()) / float(number) if self._uses_number(model, inputs, number) else 1.0

    def _uses_number(self, model: Any, inputs: dict[str, Any], number: Any) -> bool:
        """Whether the loss is divided by the number of items that it is told, found by telling it twice as many.

        Models that take the number and ignore it are common (BERT's classifier), and the Trainer takes their word.
        """
        if self._number_is_used is None:
            first, second = self._loss(model, inputs, number), self._loss(model, inputs, 2 * number)
            ratio = first / second if second else float("nan")
            used, ignored = abs(ratio - 2) < CLOSE, abs(ratio - 1) < CLOSE
            if not (used or ignored):
                raise AutoSpecError(
                    f"the loss becomes 1/{ratio:.3g} of itself when it is told of twice as many items "
                    "(num_items_in_batch), so that what a sample's loss is multiplied by is not known; record with "
                    "gradient_accumulation_steps=1"
                )
            self._number_is_used = used
        return self._number_is_used

    def _loss(self, model: Any, inputs: dict[str, Any], number: Any = None) -> float:
        """The loss of a batch beside training: no gradient, buffer or random number is changed."""
        trainer = self._trainer
        model = trainer.model if trainer.args.world_size > 1 else model  # the wrapper may send something
        prepared = trainer._prepare_inputs(dict(inputs))
        quiet = (torch.no_grad(), random_state_kept(tree_leaves(prepared)), state_kept(trainer.model))
        with contextlib.ExitStack() as stack:
            for context in (*quiet, trainer.compute_loss_context_manager()):
                stack.enter_context(context)
            return float(trainer.compute_loss(model, prepared, num_items_in_batch=number))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin to record, or go on from a checkpoint."""
        if state.global_step:
            self._loop.state = _read_state(Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE)
        self._loop.begin(self._trainer.model, self._trainer.accelerator.scaler)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End the record of a step."""
        if self._loop.at == STEP:
            self._loop.record(state.global_step)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End the record of an epoch."""
        if self._loop.at == EPOCH:
            self._loop.record()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write what a checkpoint needs to go on."""
        if not self._loop.is_recording:
            return
        written = self._loop.state_dict()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            torch.save(written, folder / STATE_FILE)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the file."""
        self._loop.end()


class GroupCollator:
    """A collator that takes columns out of the samples and puts them beside what another makes of the rest.

    Args:
        collator: makes a batch of what the model is given.
        columns: our columns, by the key that a batch holds them under.
        kept: the columns that the model takes; None keeps all.
    """

    def __init__(
        self, collator: Callable[[list[Any]], Any], columns: Mapping[str, str], kept: frozenset[str] | None = None
    ) -> None:
        self._collator = collator
        self._columns = columns
        self._kept = kept

    def __call__(self, samples: list[Any]) -> Any:
        taken = {key: [_value(sample, column) for sample in samples] for key, column in self._columns.items()}
        ours = set(self._columns.values())
        rest = [
            {name: sample[name] for name in sample if name not in ours and (self._kept is None or name in self._kept)}
            for sample in samples
        ]
        batch = self._collator(rest)
        for key, values in taken.items():
            batch[key] = torch.as_tensor(values) if all(isinstance(value, int) for value in values) else values
        return batch


def _value(sample: Any, column: str) -> Any:
    if not isinstance(sample, Mapping) or column not in sample:
        there = ", ".join(map(str, sample)) if isinstance(sample, Mapping) else type(sample).__name__
        raise AutoSpecError(f"column={column!r}: the training set has no such column; a sample has {there}")
    value = sample[column]
    return value.item() if hasattr(value, "item") else value


def _read_state(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise AutoSpecError(f"{path}: no such file, so that recording cannot go on from this checkpoint")
    return torch.load(path, weights_only=True)
