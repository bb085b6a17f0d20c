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

from autospec.capture.aliased import AliasedEngine
from autospec.capture.hooks import HookListener, is_compiled
from autospec.capture.layers import Layer, Selection, Use, trained_layers, watched_modules
from autospec.capture.leaves import LeafGradients, leaf_gradients
from autospec.capture.schedule import Schedule
from autospec.earlier import EarlierSubspaces
from autospec.epoch_sums import EpochSums
from autospec.errors import AutoSpecError, AutoSpecWarning
from autospec.layout import (
    EPOCH,
    GRADIENT,
    NULL_EPOCH,
    RECORDED_EPOCHS,
    SUBSPACE,
    TRAINING_CURVES,
    TRAINING_EPOCH,
    TRAINING_EPOCHS,
    UNGROUPED,
    Field,
)
from autospec.null_sums import NullSums
from autospec.relabelling import Relabellings
from autospec.spectra.cells import Cells, checked_grouping
from autospec.spectra.factors import Factors
from autospec.spectra.statistics import chosen_statistics
from autospec.store.read import Spectra, open_spectra, read_table
from autospec.store.table import SpectraTable
from autospec.store.write import Header, remove_leftovers, spectra_bytes, write_spectra

WRITE_SHARE = 0.02
"""The largest share of a run's time that writing the file may take."""
ENGINES = ("hooks", "aliased")
ROUNDINGS = 256
"""How many roundings of their terms the sums may be away from what backward left; it adds up naively itself."""


class SpectralRecorder:
    """Records the spectra of every layer's gradient, activations and adjoints by group while a model trains.

    Args:
        model: the model; its weights, gradients, loss and random state stay the same to the last bit.
        path: the HDF5 file to write, or None to keep the spectra in memory (``recorder.spectra``).
        groups: names of the disjoint groups that labels are indices into.
        margins: further groups, each the union of some disjoint ones (``{"SZ": ["SZ/men", "SZ/women"]}``).
        statistics: any of gradient, activation, adjoint, rank (bound, numerical and effective rank of each gradient)
            tied (gradient spectra at each position at which a weight is tied) and subspace (principal angles of the
            leading singular vectors between groups, and between records).
        every: spectra are taken at every k-th epoch, and at the last if ``epochs`` is given.
        epochs: the number of epochs of the run, where it is known.
        layers: name patterns and module types; ``!pattern`` leaves out; None is every trained weight matrix.
        leading: store only so many singular values, the largest; None stores all.
        directions: how many leading singular vectors ``subspace`` compares.
        bins: how many stretches the positions of ``tied`` spectra are split into; None keeps each.
        engine: "hooks", or "aliased": gradients only, one forward pass per group, for any module that treats samples
            one by one, but then training is equal within rounding only.
        check_every: with ``aliased``, compare with an unsplit pass at every k-th batch; None at the first only.
        reduction: how the loss is reduced over a batch, "mean" or "sum".
        scaler: the ``GradScaler`` of float16 training, whose scale is undone.
        resume, overwrite: what to do with an existing file; without either it is an error.
        periodic: write the file every so often; False leaves that to ``state_dict``, ``write`` and ``close``.
        group_sizes: the number of people per reported group (``all`` first), where known.
        relabellings: partitions of people, whose spectra are taken at their epochs from the same backward passes.
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
        leading: int | None = None,
        directions: int = 3,
        bins: int | None = None,
        engine: str = "hooks",
        check_every: int | None = None,
        reduction: str = "mean",
        scaler: torch.amp.GradScaler | None = None,
        resume: bool = False,
        overwrite: bool = False,
        periodic: bool = True,
        group_sizes: Sequence[int] | None = None,
        relabellings: Relabellings | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.grouping = checked_grouping(groups, margins or {})
        self.schedule = Schedule(every, epochs)
        self.statistics = chosen_statistics(statistics)
        _check_choices(engine, statistics, reduction, leading=leading, directions=directions, bins=bins)
        self._mean_loss = reduction == "mean"
        self._leading, self._directions, self._bins = leading, directions, bins
        self._earlier = EarlierSubspaces(wanted=SUBSPACE in statistics)
        self._scaler = scaler
        self._engine, self._uses = self._listening_engine(model, layers, engine, check_every)
        self._header = Header(
            groups=self.grouping.names,
            margins=margins or {},
            group_sizes=group_sizes,
            attributes={"complete": False, "engine": engine, **(attributes or {})},
            layers={layer.name: _layer_attributes(layer, engine) for layer in self._layers()},
            null=relabellings,
        )
        self._relabellings = relabellings
        self.relabelling_s = 0.0
        self.table = self._opened_table(resume, overwrite)
        self.epoch = self.table.training_epochs[-1] + 1 if self.table.training_epochs else 0
        self._periodic = periodic
        self._closed = False
        self._compiled = is_compiled(model)
        self._spoilt = False
        self._checked = False
        self._warned: set[str] = set()
        self._last_write = time.monotonic()
        self._write_cost_s = 0.0
        self._batch: Batch | None = None
        self._begin_sums()

    @contextlib.contextmanager
    def batch(self, group: Tensor | npt.ArrayLike, samples: Tensor | None = None) -> Iterator[Batch]:
        """A context for the forward and backward pass of one batch; ``group`` (n,) are labels, -1 for none.

        ``samples`` (n,) says which of all samples a batch holds, where ``relabellings`` were given; None is all, in
        order. Yields the batch, which takes per-sample losses: ``batch.losses(losses)``. Raises AutoSpecError for
        labels outside the groups, a batch without a backward pass, and what a layer cannot explain.
        """
        self._check_open()
        if self._batch is not None:
            raise AutoSpecError("recorder.batch(...) is already open; one batch at a time")
        if self._spoilt:
            raise AutoSpecError(
                "an earlier batch of this epoch raised after its backward pass had begun, so its sums are spoilt; "
                "go on from the last epoch with recorder.rewind(recorder.epoch)"
            )
        if not self.schedule.takes(self.epoch):
            yield Batch(None)
            return
        cells = Cells.of(self._checked_labels(group), self.grouping.cells)
        self._batch = batch = Batch(cells, self._people(samples, cells))
        first = isinstance(self._engine, HookListener) and not self._checked
        try:
            with leaf_gradients(self._layers() if first else []) as left, self._engine.listening(cells):
                yield batch
            if not batch.heard:
                names = ", ".join(repr(name) for name in self._header.layers)
                compiled = "; a compiled model must be given to the recorder before the first call" * self._compiled
                raise AutoSpecError(
                    f"the batch ended without a backward pass through any watched layer ({names}); "
                    f"call loss.backward() inside recorder.batch(...){compiled}"
                )
            self._check_against(left)
            self._sums.count(cells, batch.loss_sums)
            if self._null is not None and batch.person is not None:
                self._null.count(batch.person, batch.sample_losses)
        except BaseException:
            self._spoilt = self._spoilt or batch.heard  # what it has added to the sums cannot be taken back
            raise
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
            if not self._sums.batches:
                raise AutoSpecError(f"epoch {label} ended without a recorder.batch(...)")
            self.table.append({RECORDED_EPOCHS: label, **self._sums.measured(label, self._leading)}, EPOCH)
            self._earlier.replace(self._sums, label)
        if self._null is not None and self._sums.batches:
            self.table.append(self._null.measured(label), NULL_EPOCH)
            self.relabelling_s += self._null.cost_s
        curves = dict(zip(TRAINING_CURVES, (loss, metric, validation_loss, validation_metric), strict=True))
        self.table.append({TRAINING_EPOCHS: label, **curves}, TRAINING_EPOCH)
        self.epoch = label + 1 if step is None else self.epoch + 1
        self._begin_sums()
        if self._periodic and self.path and self._write_is_due():
            self.write()

    def write(self) -> None:
        """Write the file now; AutoSpecError where that fails, with what stood there before untouched."""
        if self.path is None:
            return
        started = time.monotonic()
        write_spectra(self.path, self.table, self._header)
        self._last_write = time.monotonic()
        self._write_cost_s = self._last_write - started

    @property
    def spectra(self) -> Spectra:
        """Everything recorded so far, labelled; with or without a file."""
        return Spectra(spectra_bytes(self.table, self._header))

    def close(self, complete: bool = True) -> None:
        """Take all hooks off the model and write the file; ``complete`` says whether the run ended well."""
        if self._closed:
            return
        self._closed = True
        self._engine.close()
        self._header.attributes["complete"] = complete
        self.write()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on from here; the file is written, so that it is never behind it."""
        if self._sums.batches:
            raise AutoSpecError("a recorder's state is taken between epochs, after end_epoch")
        self.write()
        arrays = {} if self.path else {a.field.path: torch.as_tensor(a.values.copy()) for a in self.table}
        dimensions = {} if self.path else {a.field.path: list(a.field.dimensions) for a in self.table}
        state = {"epoch": self.epoch, "arrays": arrays, "dimensions": dimensions}
        return {**state, "subspaces": self._earlier.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: what the file holds beyond it is dropped, and will be recomputed."""
        for path, values in state["arrays"].items():
            array = values.numpy()
            self.table.restore(Field(path, tuple(state["dimensions"][path]), array.dtype.name), array)
        self._earlier.load_state_dict(state.get("subspaces", {}))
        self.rewind(int(state["epoch"]))

    def rewind(self, epoch: int) -> None:
        """Drop everything from an epoch on and go on there; AutoSpecError where the file does not reach it."""
        reached = self.table.training_epochs[-1] + 1 if self.table.training_epochs else 0
        if epoch > reached:
            raise AutoSpecError(f"{self.path} ends before epoch {reached}, but the checkpoint is of epoch {epoch}")
        self.table.truncate(epoch)
        self._earlier.forget(epoch)
        self.epoch = epoch
        self._spoilt = False
        self._begin_sums()

    @property
    def layers(self) -> list[str]:
        """The names of the watched layers, in the model's order."""
        return [layer.name for layer in self._layers()]

    def __enter__(self) -> SpectralRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)

    # --- between the engine and the sums -----------------------------------------------------------------------

    def _listening_engine(
        self, model: nn.Module, layers: Selection, engine: str, check_every: int | None
    ) -> tuple[HookListener | AliasedEngine, list[Use]]:
        if engine == "aliased":
            chosen = trained_layers(model, layers)
            uses = [Use(layer.name, layer, layer.name) for layer in chosen]
            return AliasedEngine(model, chosen, self._add_matrices, check_every), uses
        watched = watched_modules(model, layers)
        return HookListener(model, watched, self._add), [use for module in watched for use in module.uses]

    def _layers(self) -> list[Layer]:
        """Every watched weight once, in the model's order."""
        return list({use.layer.name: use.layer for use in self._uses}.values())

    def _begin_sums(self) -> None:
        """Nothing is summed up yet: the state after every record."""
        self._sums = EpochSums(
            self._uses,
            self.grouping,
            self.statistics,
            mean_loss=self._mean_loss,
            bins=self._bins,
            warn=self._warn,
            directions=self._directions,
            earlier=self._earlier.of_layers,
        )
        chosen = self._relabellings
        due = chosen is not None and self.epoch in chosen.epochs
        self._null = NullSums(chosen, self._uses, self._mean_loss) if chosen is not None and due else None

    def _people(self, samples: Tensor | None, cells: Cells) -> Tensor | None:
        """(n,): whose each sample of a batch is, where people are relabelled at this epoch."""
        if self._null is None or self._relabellings is None:
            return None
        person = torch.from_numpy(self._relabellings.person)
        person = person if samples is None else person[samples.cpu()]
        if len(person) != len(cells.of_sample):
            raise AutoSpecError(
                f"{len(cells.of_sample)} labels, but relabellings of {len(person)} samples; "
                "recorder.batch(group, samples=...) says which samples a batch holds"
            )
        return person.to(cells.of_sample.device)

    def _add(self, use: Use, factors: Factors) -> None:
        assert self._batch is not None
        assert self._batch.cells is not None
        if self._scaler is not None:
            factors = factors.scaled(1 / self._scaler.get_scale())
        self._batch.heard = True
        self._sums.add(use, factors, self._batch.cells)
        if self._null is not None and self._batch.person is not None:
            self._null.add(use, factors, self._batch.person)

    def _add_matrices(self, layer: Layer, gradients: Tensor) -> None:
        assert self._batch is not None
        self._batch.heard = True
        scale = 1.0 if self._scaler is None else self._scaler.get_scale()
        self._sums.add_matrices(layer, gradients / scale)

    def _check_against(self, left: LeafGradients) -> None:
        """Hold the first batch's sums against the gradients that backward left: no layer may be silently wrong."""
        if not left or not any(GRADIENT in statistic.needs for statistic in self.statistics):
            return
        self._checked = True
        scale = 1.0 if self._scaler is None else self._scaler.get_scale()
        for layer in self._layers():
            if layer.name not in left:
                continue
            found, rounding = self._sums.whole_gradient(layer)
            expected = left[layer.name].to(found.device) / scale
            difference = float((found - expected).norm())
            if expected.isfinite().all() and not difference <= ROUNDINGS * rounding + 1e-30:
                raise AutoSpecError(
                    f"layer {layer.name!r}: the groups' gradients do not add up to the one that backward left "
                    f"(off by {difference / float(expected.norm()):.1e} of its norm). Its weight is used in a way that "
                    f"the rule of {layer.kind} does not describe, such as outside its module; register a rule, or "
                    f"leave it out with layers=['!{layer.name}']"
                )

    def _write_is_due(self) -> bool:
        return time.monotonic() - self._last_write > max(1.0, self._write_cost_s / WRITE_SHARE)

    # --- checks ------------------------------------------------------------------------------------------------

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

    def _warn(self, layer: str, message: str) -> None:
        if layer not in self._warned:
            self._warned.add(layer)
            warnings.warn(f"layer {layer!r}: {message}", AutoSpecWarning, stacklevel=6)


class Batch:
    """One batch inside ``recorder.batch``; ``cells`` is None at an epoch at which no spectra are taken."""

    def __init__(self, cells: Cells | None, person: Tensor | None = None) -> None:
        self.cells = cells
        self.person = person
        self.heard = False
        self.sample_losses: Tensor | None = None
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
        self.sample_losses = losses.detach() if self.sample_losses is None else self.sample_losses + losses.detach()


def _check_choices(engine: str, statistics: Sequence[str], reduction: str, **numbers: int | None) -> None:
    if engine not in ENGINES:
        raise AutoSpecError(f"engine={engine!r}: allowed are {', '.join(ENGINES)}")
    if engine == "aliased" and list(statistics) != [GRADIENT]:
        raise AutoSpecError(f"engine='aliased' knows gradients only, not statistics={list(statistics)}")
    if reduction not in ("mean", "sum"):
        raise AutoSpecError(f"reduction={reduction!r}: allowed are mean, sum")
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise AutoSpecError(f"{name}={value}: must be 1 or more")


def _layer_attributes(layer: Layer, engine: str) -> dict[str, Any]:
    floor = "eps sqrt(min(shape)) |A| |D|" if engine == "hooks" else "eps max(shape) s1"
    return {"shape": layer.shape, "kind": layer.kind, "gradient_floor": floor}
