"""The recorder: what a training loop talks to."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autospec.capture.hooks import HookListener
from autospec.capture.layers import Selection, Use, watched_modules
from autospec.capture.schedule import Schedule
from autospec.errors import AutoSpecError, AutoSpecWarning
from autospec.layout import (
    ALL,
    EPOCH,
    GROUP_LOSS,
    GROUP_ROWS,
    GROUP_WEIGHT,
    RECORDED_EPOCHS,
    TRAINING_CURVES,
    TRAINING_EPOCH,
    TRAINING_EPOCHS,
    UNGROUPED,
    Field,
    layer_field,
)
from autospec.spectra.cells import Cells, Grouping, grouping
from autospec.spectra.factors import Factors
from autospec.spectra.statistics import chosen_statistics
from autospec.spectra.sums import GRADIENT, LayerSums
from autospec.store.read import open_spectra, read_table
from autospec.store.table import SpectraTable
from autospec.store.write import Header, remove_leftovers, write_spectra

WRITE_SHARE = 0.02
"""The largest share of a run's time that writing the file may take."""


class SpectralRecorder:
    """Records the spectra of every layer's gradient, activations and adjoints by group while a model trains.

    Args:
        model: the model; its weights, gradients, loss and random state stay the same to the last bit.
        path: the HDF5 file to write, or None to keep the spectra in memory (``recorder.table``).
        groups: names of the disjoint groups that labels are indices into.
        margins: further groups, each the union of some disjoint ones (``{"SZ": ["SZ/men", "SZ/women"]}``).
        statistics: which of gradient, activation and adjoint to record.
        every: spectra are taken at every k-th epoch, and at the last if ``epochs`` is given.
        epochs: the number of epochs of the run, where it is known.
        layers: name patterns and module types; ``!pattern`` leaves out; None is every trained weight matrix.
        reduction: how the loss is reduced over a batch, "mean" or "sum".
        scaler: the ``GradScaler`` of float16 training, whose scale is undone.
        resume, overwrite: what to do with an existing file; without either it is an error.
        group_sizes: the number of people per reported group (``all`` first), where known.
        attributes: root attributes of the file.

    Raises AutoSpecError for arguments that do not fit, an existing file, and a layer type without a rule.
    """

    def __init__(
        self,
        model: nn.Module,
        path: str | Path | None = None,
        *,
        groups: Sequence[str],
        margins: Mapping[str, Sequence[str]] | None = None,
        statistics: Sequence[str] = (GRADIENT,),
        every: int = 1,
        epochs: int | None = None,
        layers: Selection = None,
        reduction: str = "mean",
        scaler: torch.amp.GradScaler | None = None,
        resume: bool = False,
        overwrite: bool = False,
        group_sizes: Sequence[int] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.grouping = checked_grouping(groups, margins or {})
        self.schedule = Schedule(every, epochs)
        self.statistics = chosen_statistics(statistics)
        if reduction not in ("mean", "sum"):
            raise AutoSpecError(f"reduction={reduction!r}: allowed are mean, sum")
        self._reduction = reduction
        self._scaler = scaler
        watched = watched_modules(model, layers)
        self._uses = [use for module in watched for use in module.uses]
        self._listener = HookListener(model, watched, self._add)
        self._header = Header(
            groups=self.grouping.names,
            margins=margins or {},
            group_sizes=group_sizes,
            attributes={"complete": False, **(attributes or {})},
            layers={use.layer.name: _layer_attributes(use) for use in reversed(self._uses)},
        )
        self._header.layers = dict(reversed(self._header.layers.items()))
        self.table = self._opened_table(resume, overwrite)
        self.epoch = self.table.training_epochs[-1] + 1 if self.table.training_epochs else 0
        self._closed = False
        self._warned: set[str] = set()
        self._last_write = time.monotonic()
        self._write_cost_s = 0.0
        self._batch: Batch | None = None
        self._reset()

    @contextlib.contextmanager
    def batch(self, group: Tensor | npt.ArrayLike) -> Iterator[Batch]:
        """A context for the forward and backward pass of one batch; ``group`` (n,) are labels, -1 for none.

        Yields the batch, which takes per-sample losses: ``batch.losses(losses)``. Raises AutoSpecError for labels
        outside the groups, a batch without a backward pass, and what a layer cannot explain.
        """
        self._check_open()
        if self._batch is not None:
            raise AutoSpecError("recorder.batch(...) is already open; one batch at a time")
        if not self.schedule.takes(self.epoch):
            yield Batch(None, self)
            return
        self._batch = Batch(Cells.of(self._checked_labels(group), self.grouping.cells), self)
        try:
            with self._listener.listening():
                yield self._batch
            if not self._batch.heard:
                names = ", ".join(repr(name) for name in self._header.layers)
                raise AutoSpecError(
                    f"the batch ended without a backward pass through any watched layer ({names}); "
                    "call loss.backward() inside recorder.batch(...)"
                )
            self._count(self._batch)
        finally:
            self._batch = None

    def end_epoch(
        self,
        loss: float | None = None,
        metric: float | None = None,
        validation_loss: float | None = None,
        validation_metric: float | None = None,
    ) -> None:
        """End an epoch, numbered from 0: store its losses and, where it is due, its spectra."""
        self.record(None, loss, metric, validation_loss, validation_metric)

    def record(
        self,
        step: int | None = None,
        loss: float | None = None,
        metric: float | None = None,
        validation_loss: float | None = None,
        validation_metric: float | None = None,
    ) -> None:
        """Store what was summed up since the last call; for loops without epochs, ``step`` numbers it."""
        self._check_open()
        label = self.epoch if step is None else step
        if self.table.training_epochs and label <= self.table.training_epochs[-1]:
            raise AutoSpecError(f"step={label} comes after {self.table.training_epochs[-1]}; steps must rise")
        if self.schedule.takes(self.epoch):
            if not self._batches:
                raise AutoSpecError(f"epoch {label} ended without a recorder.batch(...)")
            self.table.append({RECORDED_EPOCHS: label, **self._measured()}, EPOCH)
        curves = dict(zip(TRAINING_CURVES, (loss, metric, validation_loss, validation_metric), strict=True))
        self.table.append({TRAINING_EPOCHS: label, **curves}, TRAINING_EPOCH)
        self.epoch = label + 1 if step is None else self.epoch + 1
        self._reset()
        if self.path and time.monotonic() - self._last_write > max(1.0, self._write_cost_s / WRITE_SHARE):
            self.write()

    def write(self) -> None:
        """Write the file now; AutoSpecError where that fails, with what stood there before untouched."""
        if self.path is None:
            return
        started = time.monotonic()
        write_spectra(self.path, self.table, self._header)
        self._last_write = time.monotonic()
        self._write_cost_s = self._last_write - started

    def close(self, complete: bool = True) -> None:
        """Take all hooks off the model and write the file; ``complete`` says whether the run ended well."""
        if self._closed:
            return
        self._closed = True
        self._listener.close()
        self._header.attributes["complete"] = complete
        self.write()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on from here; the file is written, so that it is never behind it."""
        if self._batches:
            raise AutoSpecError("a recorder's state is taken between epochs, after end_epoch")
        self.write()
        arrays = {} if self.path else {a.field.path: torch.as_tensor(a.values.copy()) for a in self.table}
        dimensions = {} if self.path else {a.field.path: list(a.field.dimensions) for a in self.table}
        return {"epoch": self.epoch, "arrays": arrays, "dimensions": dimensions}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: what the file holds beyond it is dropped, and will be recomputed."""
        for path, values in state["arrays"].items():
            array = values.numpy()
            self.table.restore(Field(path, tuple(state["dimensions"][path]), array.dtype.name), array)
        self.rewind(int(state["epoch"]))

    def rewind(self, epoch: int) -> None:
        """Drop everything from an epoch on and go on there; AutoSpecError where the file does not reach it."""
        reached = self.table.training_epochs[-1] + 1 if self.table.training_epochs else 0
        if epoch > reached:
            raise AutoSpecError(f"{self.path} ends before epoch {reached}, but the checkpoint is of epoch {epoch}")
        self.table.truncate(epoch)
        self.epoch = epoch
        self._reset()

    def __enter__(self) -> SpectralRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)

    # --- what is summed up between two records ---------------------------------------------------------------

    def _reset(self) -> None:
        needs = frozenset().union(*(statistic.needs for statistic in self.statistics))
        self._sums: dict[str, LayerSums] = {}
        for use in self._uses:
            keep = needs if use.name == use.layer.name else needs - {GRADIENT}
            self._sums[use.name] = LayerSums(use.layer.shape, self.grouping, keep)
        self._batches = 0
        self._samples = torch.zeros(self.grouping.cells, dtype=torch.int64)
        self._weight = torch.zeros(self.grouping.cells, dtype=torch.float64)
        self._loss = torch.zeros(self.grouping.cells, dtype=torch.float64)
        self._losses_given = 0

    def _add(self, use: Use, factors: Factors) -> None:
        """Take one weight's factors from a backward pass."""
        assert self._batch is not None and self._batch.cells is not None
        cells = self._batch.cells
        if factors.device != cells.of_sample.device:
            raise AutoSpecError(
                f"layer {use.name!r} is on {factors.device}, the group labels on {cells.of_sample.device}"
            )
        if factors.samples == 1 < len(cells.of_sample):
            self._warn(
                f"layer {use.name!r}: called with one row that all {len(cells.of_sample)} samples share, so the groups' "
                "parts of its gradient cannot be told apart; stored for 'all', NaN for the groups"
            )
            cells = cells.of_all()
        if factors.samples != len(cells.of_sample):
            raise AutoSpecError(
                f"layer {use.name!r} saw a batch of {factors.samples} samples, but {len(cells.of_sample)} group labels "
                "were given; the first dimension of its input must be the sample (or 1, where all samples share it)"
            )
        if self._scaler is not None:
            factors = factors.scaled(1 / self._scaler.get_scale())
        self._batch.heard = True
        self._sums[use.name].add(factors, cells)
        if use.name != use.layer.name:
            self._sums[use.layer.name].add_gradient(factors, cells)

    def _count(self, batch: Batch) -> None:
        assert batch.cells is not None
        counts = torch.tensor(batch.cells.counts)
        self._batches += 1
        self._samples += counts
        self._weight += counts.double() / (counts.sum() if self._reduction == "mean" else 1)
        if batch.loss_sums is not None:
            self._losses_given += 1
            self._loss += batch.loss_sums.cpu()

    def _measured(self) -> dict[Field, npt.ArrayLike | None]:
        """Every quantity of the epoch that ends, by the field it is stored in."""
        samples = self.grouping.sums(self._samples)
        measured: dict[Field, npt.ArrayLike | None] = {
            GROUP_ROWS: samples.numpy(),
            GROUP_WEIGHT: self.grouping.sums(self._weight).numpy(),
        }
        if self._losses_given == self._batches:
            measured[GROUP_LOSS] = (self.grouping.sums(self._loss) / samples).numpy()
        for name, sums in self._sums.items():
            if not sums.arrived:
                self._warn(f"layer {name!r}: no gradient arrived at epoch {self.epoch}; stored as NaN")
                continue
            for statistic in self.statistics:
                if statistic.needs <= sums.keep:
                    value = sums.told_apart(statistic.value(sums), statistic.dimensions).cpu().numpy()
                    measured[layer_field(name, statistic.name, statistic.dimensions, value.dtype.name)] = value
                    if statistic.name == GRADIENT and np.isnan(value).any():
                        self._warn(
                            f"layer {name!r}: NaN or infinity in its gradient at epoch {self.epoch}; stored as NaN"
                        )
        return measured

    # --- checks ----------------------------------------------------------------------------------------------

    def _checked_labels(self, group: Tensor | npt.ArrayLike) -> Tensor:
        labels = group if isinstance(group, Tensor) else torch.as_tensor(np.asarray(group))
        if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool or not len(labels):
            raise AutoSpecError(
                f"group labels must be a (batch,) tensor of integers, not {tuple(labels.shape)} of {labels.dtype}"
            )
        first = self._uses[0]
        if isinstance(group, Tensor) and labels.device != first.layer.parameter.device:
            raise AutoSpecError(
                f"layer {first.name!r} is on {first.layer.parameter.device}, the group labels on {labels.device}"
            )
        labels = labels.to(first.layer.parameter.device)
        low, high = int(labels.min()), int(labels.max())
        if low < UNGROUPED or high >= self.grouping.disjoint:
            names = ", ".join(self.grouping.names[1 : 1 + self.grouping.disjoint])
            wrong = low if low < UNGROUPED else high
            raise AutoSpecError(
                f"group label {wrong} is outside the {self.grouping.disjoint} groups ({names}); "
                f"allowed are 0 to {self.grouping.disjoint - 1}, and -1 for none"
            )
        return labels.long()

    def _opened_table(self, resume: bool, overwrite: bool) -> SpectraTable:
        if self.path is None:
            return SpectraTable()
        if not self.path.parent.is_dir():
            raise AutoSpecError(f"cannot write {self.path}: there is no folder {self.path.parent}")
        remove_leftovers(self.path)
        if not self.path.exists() or overwrite:
            return SpectraTable()
        if not resume:
            raise AutoSpecError(f"{self.path} exists; pass resume=True to go on with it or overwrite=True to lose it")
        found = open_spectra(self.path)
        if tuple(found.group_names) != self.grouping.names or found.layers != list(self._header.layers):
            raise AutoSpecError(f"{self.path} was recorded with other groups or layers and cannot be resumed")
        return read_table(self.path)

    def _check_open(self) -> None:
        if self._closed:
            raise AutoSpecError("the recorder is closed")

    def _warn(self, message: str) -> None:
        layer = message.split(":")[0]
        if layer not in self._warned:
            self._warned.add(layer)
            warnings.warn(message, AutoSpecWarning, stacklevel=4)


class Batch:
    """One batch inside ``recorder.batch``; ``cells`` is None at an epoch at which no spectra are taken."""

    def __init__(self, cells: Cells | None, recorder: SpectralRecorder) -> None:
        self.cells = cells
        self.heard = False
        self.loss_sums: Tensor | None = None

    def losses(self, losses: Tensor) -> None:
        """Give the loss of each sample, (n,), from which the groups' mean losses are stored."""
        if self.cells is None:
            return
        if losses.shape != self.cells.of_sample.shape:
            raise AutoSpecError(
                f"losses must be one per sample, shape {tuple(self.cells.of_sample.shape)}, not {tuple(losses.shape)}"
            )
        sums = self.cells.sums(losses.detach())
        self.loss_sums = sums if self.loss_sums is None else self.loss_sums + sums


def checked_grouping(groups: Sequence[str], margins: Mapping[str, Sequence[str]]) -> Grouping:
    """The grouping of disjoint groups and margins; AutoSpecError for names that clash or do not exist."""
    if isinstance(groups, str) or not groups:
        raise AutoSpecError(f"groups={groups!r}: a list of at least one group name is needed")
    names = [*groups, *margins]
    for name in names:
        if not isinstance(name, str) or name == ALL or names.count(name) > 1:
            raise AutoSpecError(f"groups: {name!r} is not a distinct name ({ALL!r} is reserved for the whole batch)")
    for margin, parts in margins.items():
        unknown = [part for part in parts if part not in groups]
        if unknown:
            raise AutoSpecError(f"margins: {margin!r} names {unknown[0]!r}, which is no group ({', '.join(groups)})")
    return grouping(tuple(groups), {margin: tuple(parts) for margin, parts in margins.items()})


def _layer_attributes(use: Use) -> dict[str, Any]:
    return {"shape": use.layer.shape, "kind": use.layer.kind}
