"""The recorder: what a training loop talks to."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from autospec.capture.chains import chain_bounds
from autospec.capture.engines import HOOKS, Sinks, check_engine, layer_attributes, listening_engine
from autospec.capture.fast import FastEngine
from autospec.capture.hooks import is_compiled
from autospec.capture.layers import Layer, Use
from autospec.capture.leaf_gradients import leaf_gradients
from autospec.capture.selection import Selection
from autospec.errors import AutoSpecError, AutoSpecWarning
from autospec.recording.batch import Batch, sample_groups
from autospec.recording.epoch_sums import EpochSums
from autospec.recording.gradient_check import check_against
from autospec.recording.measured_floor import MeasuredFloor, check_floor, measures
from autospec.recording.permutation_sums import PermutationSums
from autospec.recording.previous_subspaces import EarlierSubspaces
from autospec.recording.schedule import Schedule
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import Grouping, checked_grouping
from autospec.spectra.settings import RecorderSettings, check_settings
from autospec.spectra.statistics import chosen_statistics
from autospec.store.file import SpectraFile
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.read import Spectra
from autospec.store.schema import (
    EPOCH,
    GRADIENT,
    PERMUTATION_EPOCH,
    RECORDED_EPOCHS,
    SUBSPACE,
    TRAINING_CURVES,
    TRAINING_EPOCH,
    TRAINING_EPOCHS,
    Field,
)
from autospec.store.write import Header


class SpectralRecorder:
    """Records the spectra of every layer's gradient, activations and adjoints by group while a model trains.

    The sample is the first dimension of what every layer gets, but for recurrent and attention layers with
    ``batch_first=False``.

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
        engine: "hooks", or "fast": gradients only, by the quickest of the ways that are exact for the model (see
            ``autospec.capture.fast``), but then training is equal within rounding only. Its ways by name: "per_group"
            (one forward pass per group, for any module that treats samples one by one; "aliased" before), "passes"
            (a backward pass per group, too), "fused" (no pass per group; for layers with a rule).
        check_every: with the engines but ``hooks``, prove anew at every k-th batch what they rest on (an unsplit pass,
            a trace of rows); None at the first only.
        floor: how the noise floor is had: "measured" repeats every recorded batch in float64 and compares, at about the
            cost of recording it twice more; "formula" counts the rounding of the last product alone. None is measured
            with ``hooks``, and the formula with the engines that are there to be cheap.
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
        floor: str | None = None,
        reduction: str = "mean",
        scaler: torch.amp.GradScaler | None = None,
        resume: bool = False,
        overwrite: bool = False,
        periodic: bool = True,
        group_sizes: Sequence[int] | None = None,
        permutation_design: PermutationDesign | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        settings = check_settings(
            RecorderSettings,
            {
                "statistics": statistics,
                "every": every,
                "epochs": epochs,
                "leading": leading,
                "directions": directions,
                "bins": bins,
                "engine": engine,
                "check_every": check_every,
                "reduction": reduction,
            },
        )
        self.grouping = checked_grouping(groups, margins or {})
        self.schedule = Schedule(settings.every, settings.epochs)
        self.statistics = chosen_statistics(settings.statistics)
        check_engine(engine, settings.statistics, check_every)
        floor = ("measured" if engine == HOOKS else "formula") if floor is None else floor
        check_floor(floor)
        _check_group_sizes(group_sizes, self.grouping)
        self._mean_loss = reduction == "mean"
        self._leading, self._directions, self._bins = settings.leading, settings.directions, settings.bins
        self._earlier = EarlierSubspaces(wanted=SUBSPACE in settings.statistics)
        self._scaler = scaler
        self._engine_name = engine
        sinks = Sinks(self._add, self._add_matrices, self._say_way)
        self._engine, self._uses = listening_engine(engine, model, layers, sinks, check_every)
        self._chains = chain_bounds(model)
        self._selection = layers
        self._floor = MeasuredFloor(model, self._hearing) if measures(floor, self._layers()) else None
        self._header = Header(
            groups=self.grouping.names,
            margins=margins or {},
            group_sizes=group_sizes,
            attributes={"complete": False, "engine": engine, **(attributes or {})},
            layers={layer.name: layer_attributes(layer, engine, self._floor is not None) for layer in self._layers()},
            permutations=permutation_design,
        )
        self._permutation_design = permutation_design
        self.permutation_s = 0.0
        self._file = SpectraFile(self.path, self._header, resume, overwrite)
        self.table = self._file.table
        self.epoch = self.table.trained
        self._periodic = periodic
        self._closed = False
        self._compiled = is_compiled(model)
        self._spoilt = False
        self._checked = False
        self._warned: set[str] = set()
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
        cells = sample_groups(group, self.grouping, self._uses[0])
        self._batch = batch = Batch(cells, self._null.subjects_of(samples, cells) if self._null else None)
        first = not self._checked
        try:
            with (
                leaf_gradients(self._layers() if first else []) as left,
                self._following(),
                self._engine.listening(cells),
            ):
                yield batch
            if not batch.heard:
                names = ", ".join(repr(name) for name in self._header.layers)
                compiled = "; a compiled model must be given to the recorder before the first call" * self._compiled
                raise AutoSpecError(
                    f"the batch ended without a backward pass through any watched layer ({names}); "
                    f"call loss.backward() inside recorder.batch(...){compiled}"
                )
            if first and any(GRADIENT in statistic.needs for statistic in self.statistics):
                check_against(left, self._layers(), self._sums, self._loss_scale, self._engine_name)
                self._checked = True
            self._sums.count(cells, batch.loss_sums)
            if self._null is not None and batch.subject is not None:
                self._null.count(batch.subject, batch.sample_losses)
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
        last = self.table.last_epoch
        label = last + 1 if step is None else step
        if label <= last:
            raise AutoSpecError(f"step={label} comes after {last}; steps must rise")
        if self.schedule.takes(self.epoch):
            if not self._sums.batches:
                raise AutoSpecError(f"epoch {label} ended without a recorder.batch(...)")
            self._settle_floor()
            self.table.append({RECORDED_EPOCHS: label, **self._sums.measured(label, self._leading)}, EPOCH)
            self._earlier.replace(self._sums, self.epoch)
        if self._null is not None and self._sums.batches:
            self.table.append(self._null.measured(label, self._sums.relative_floors()), PERMUTATION_EPOCH)
            self.permutation_s += self._null.cost_s
        curves = dict(zip(TRAINING_CURVES, (loss, metric, validation_loss, validation_metric), strict=True))
        self.table.append({TRAINING_EPOCHS: label, **curves}, TRAINING_EPOCH)
        self.epoch += 1
        self._begin_sums()
        if self._periodic and self._file.is_due:
            self.write()

    def write(self) -> None:
        """Write the file now; AutoSpecError where that fails, with what stood there before untouched."""
        self._file.write()

    @property
    def spectra(self) -> Spectra:
        """Everything recorded so far, labelled; with or without a file."""
        return self._file.spectra()

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
        way = {"way": self._engine.chosen} if isinstance(self._engine, FastEngine) else {}
        return {**state, **way, "subspaces": self._earlier.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: what the file holds beyond it is dropped, and will be recomputed."""
        for path, values in state["arrays"].items():
            array = values.numpy()
            self.table.restore(Field(path, tuple(state["dimensions"][path]), array.dtype.name), array)
        self._earlier.load_state_dict(state.get("subspaces", {}))
        if isinstance(self._engine, FastEngine):
            self._engine.choose(state.get("way"))  # another would differ in the last digits
        self.rewind(int(state["epoch"]))

    def rewind(self, epoch: int) -> None:
        """Keep so many epochs (or steps), drop the rest and go on there; AutoSpecError where there are not as many."""
        if epoch > self.table.trained:
            held = f"{self.path or 'the recorder'} ends before epoch {self.table.trained}"
            raise AutoSpecError(f"{held}, but the checkpoint is of epoch {epoch}")
        self.table.keep_first(epoch)
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

    def _layers(self) -> list[Layer]:
        """Every watched weight once, in the model's order."""
        return list({use.layer.name: use.layer for use in self._uses}.values())

    def _begin_sums(self) -> None:
        """Nothing is summed up yet: the state after every record."""
        self._sums = self._new_sums()
        if self._floor is not None:
            self._floor.begin(self._new_sums())
        chosen = self._permutation_design
        due = chosen is not None and self.epoch in chosen.epochs
        self._null = PermutationSums(chosen, self._uses, self._mean_loss) if chosen is not None and due else None

    def _new_sums(self) -> EpochSums:
        return EpochSums(
            self._uses,
            self.grouping,
            self.statistics,
            mean_loss=self._mean_loss,
            bins=self._bins,
            chains=self._chains,
            warn=self._warn,
            directions=self._directions,
            earlier=self._earlier.of_layers,
        )

    def _following(self) -> contextlib.AbstractContextManager[None]:
        """The context that repeats a batch in float64, where the floor is measured."""
        return contextlib.nullcontext() if self._floor is None else self._floor.following()

    @contextlib.contextmanager
    def _hearing(self, model: nn.Module, sums: EpochSums) -> Iterator[None]:
        """A context in which the backward passes of a copy of the model are added to ``sums``."""
        assert self._batch is not None
        assert self._batch.cells is not None
        cells = self._batch.cells

        def add(use: Use, factors: GradientFactors) -> None:
            sums.add(use, factors.scaled(1 / self._loss_scale), cells)

        def add_matrices(layer: Layer, gradients: Tensor, eps: float) -> None:
            sums.add_matrices(layer, gradients / self._loss_scale, eps)

        way = self._engine.chosen if isinstance(self._engine, FastEngine) else None
        sinks = Sinks(add, add_matrices, lambda way: None)
        engine, _ = listening_engine(way or self._engine_name, model, self._selection, sinks, None)
        with engine.listening(cells):
            yield

    def _settle_floor(self) -> None:
        """Give the sums of the record that ends what is known of their rounding."""
        if self._floor is None:
            return
        self._floor.settle(self._sums)
        if self._floor.refusal:
            self._warn_once(
                "",
                f"the noise floor of epoch {self.epoch} could not be measured in float64 ({self._floor.refusal}); the "
                "formula stands in, which knows the last product's rounding alone; ask for it with floor='formula'",
            )

    def _add(self, use: Use, factors: GradientFactors) -> None:
        assert self._batch is not None
        assert self._batch.cells is not None
        if self._scaler is not None:
            factors = factors.scaled(1 / self._loss_scale)
        self._batch.heard = True
        self._sums.add(use, factors, self._batch.cells)
        if self._null is not None and self._batch.subject is not None:
            self._null.add(use, factors, self._batch.subject)

    def _add_matrices(self, layer: Layer, gradients: Tensor, eps: float) -> None:
        assert self._batch is not None
        self._batch.heard = True
        self._sums.add_matrices(layer, gradients if self._scaler is None else gradients / self._loss_scale, eps)

    def _say_way(self, way: str) -> None:
        """The file says which way the fast engine goes."""
        self._header.attributes["engine_way"] = way

    @property
    def _loss_scale(self) -> float:
        """What the loss was multiplied by before its backward pass."""
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def _check_open(self) -> None:
        if self._closed:
            raise AutoSpecError("the recorder is closed")

    def _warn(self, layer: str, message: str) -> None:
        self._warn_once(layer, f"layer {layer!r}: {message}")

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(message, AutoSpecWarning, stacklevel=6)


def _check_group_sizes(group_sizes: Sequence[int] | None, grouping: Grouping) -> None:
    if group_sizes is not None and len(group_sizes) != grouping.reported:
        raise AutoSpecError(
            f"group_sizes has {len(group_sizes)} numbers, but there are {grouping.reported} groups to report: "
            f"{', '.join(grouping.names)}"
        )
