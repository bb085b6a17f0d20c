"""The recorder: what a training loop talks to."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from autospec.capture.chains import chain_bounds
from autospec.capture.checkpoints import name_checkpoints
from autospec.capture.copies import Uncopied
from autospec.capture.engines import HOOKS, Sinks, check_engine, layer_attributes, listening_engine
from autospec.capture.fast import FastEngine
from autospec.capture.hooks import HookListener, is_compiled
from autospec.capture.layers import Layer, Use, say_what_is_left_out
from autospec.capture.leaf_gradients import leaf_gradients
from autospec.capture.row_owners import RowOwners
from autospec.capture.selection import Selection
from autospec.errors import AutoSpecError, AutoSpecWarning
from autospec.recording.access import Access
from autospec.recording.averaged_check import AveragedCheck
from autospec.recording.batch import Batch, LastGroups, loss_weights
from autospec.recording.epoch_sums import EpochSums, Measured
from autospec.recording.given_batch import GivenBatch, add_given
from autospec.recording.gradient_check import GradientCheck, check_against
from autospec.recording.joint_epoch import join, measured_together
from autospec.recording.layer_table import LayerTable, layer_table
from autospec.recording.leading_spectra import leading_spectra
from autospec.recording.measured_floor import measured_floor
from autospec.recording.pending_records import PendingRecords
from autospec.recording.permutation_request import permutation_request
from autospec.recording.permutation_sums import PermutationSums
from autospec.recording.previous_subspaces import EarlierSubspaces
from autospec.recording.previous_weights import PreviousWeights
from autospec.recording.processes import (
    Processes,
    answering,
    check_served,
    find_processes,
    is_one_of_several,
    unwrapped,
)
from autospec.recording.record_scalars import OnRecord, record_scalars
from autospec.recording.resumption import check_state
from autospec.recording.scale_check import ScaleCheck
from autospec.recording.schedule import Schedule
from autospec.recording.subject_register import GivenSubjects, SubjectRegister
from autospec.spectra.constant_rows import ConstantRows
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import Grouping, SampleGroups, checked_grouping
from autospec.spectra.registered import WEIGHT
from autospec.spectra.settings import CALIBRATED, FORMULA, RecorderSettings, check_settings
from autospec.spectra.statistics import chosen_statistics
from autospec.store.file import SpectraFile
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.read import Spectra
from autospec.store.schema import (
    EPOCH,
    GRADIENT,
    PERMUTATION_EPOCH,
    RECORDED_EPOCHS,
    SPECTRUM_NAMES,
    SUBSPACE,
    TRAINING_CURVES,
    TRAINING_EPOCH,
    TRAINING_EPOCHS,
    Field,
)
from autospec.store.table import SpectraTable
from autospec.store.write import Header

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class SpectralRecorder(Uncopied):
    """Records the spectra of every layer's gradient, activations and adjoints by group while a model trains.

    Whose a row is, is traced on the first batch and wherever it may change; ``check`` shows it.

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
        tolerance: with ``leading``, take those of gradients by block iteration from the record before, where each is
            certified to lie within ``tolerance`` times the group's first; all others exactly. Bounds are stored.
        directions: how many leading singular vectors ``subspace`` compares.
        bins: how many stretches the positions of ``tied`` spectra are split into; None keeps each.
        engine: "hooks", or "fast": gradients only, by the quickest of the ways that are exact for the model (see
            ``autospec.capture.fast``), but then training is equal within rounding only. Its ways by name: "per_group"
            (one forward pass per group, for any module that treats samples one by one; "aliased" before), "passes"
            (a backward pass per group, too), "fused" (no pass per group; for layers with a rule).
        check_every: with the engines but ``hooks``, prove anew at every k-th batch what they rest on (an unsplit pass,
            a trace of rows); None at the 1st, 2nd, 4th, 8th, ...
        floor: how the noise floor is had: "measured" repeats every recorded batch in float64 and compares, at about the
            cost of recording it twice more; "calibrated" does so at records 0, 1, 2, 3, 5, 8, 12, 18 and so on, and
            between them takes the formula's floor times twice the larger ratio of the last two measured to it, which
            about 0.1 % of values exceed; "formula" counts the rounding of the last product alone. None is calibrated
            with ``hooks``, and the formula with the engines that are there to be cheap.
        reduction: how the loss is reduced over a batch, "mean" or "sum".
        scaler: the ``GradScaler`` of float16 training, whose scale is undone.
        resume: go on with an existing file; without this or ``overwrite`` it is an error.
        overwrite: replace an existing file.
        periodic: write the file every so often; False leaves that to ``state_dict``, ``write`` and ``close``.
        group_sizes: the number of people per reported group (``all`` first), where known.
        permutations: how many times labels of subjects are exchanged, which gives ``spectra.tests()`` a valid p; 0 is
            no test. Convolutions and sequences take memory for the gradient of every subject.
        target_is_group: must be said with ``permutations``: whether the groups are what the model learns to tell apart.
        subjects: whose each sample of the data set is, in its order, where ``batch`` is given ``samples``; None where
            it is given ``subject``.
        strata: columns within which labels are exchanged, ``{"sex": {subject: level}}``, or a level for each sample
            beside ``subjects``; the class that the model learns, where it learns one, belongs here.
        pairs: the pairs of groups that are tested; None is every pair that shares no sample.
        omnibus: whether all disjoint groups are tested at once as well; None is where there are three or more.
        covariates: numbers of subjects, ``{"age": {subject: years}}``, or one for each sample beside ``subjects``:
            whether what a subject adds to the gradient goes with them is tested, within groups and ``strata``.
        permutation_epochs: at how many epochs labels are exchanged, where ``epochs`` is given; else it is done at
            records 0, 1, 2, 4, 8 and so on.
        permutation_seed: the seed of the exchanges.
        on_record: called after each record with a dict of numbers, per layer and group, for any logger; of several
            processes by the first.
        permutation_design: permutations that were designed beforehand, in place of the eight arguments above.
        attributes: root attributes of the file.
        process_group: the processes that train the model together, each on a shard of the samples; None finds them
            (``DistributedDataParallel``, or the default group of ``torch.distributed``), False is this one alone.
            Every process makes the recorder and ends the same epochs; the first writes the file.

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
        tolerance: float | None = None,
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
        permutations: int = 0,
        target_is_group: bool | None = None,
        subjects: Iterable[Any] | None = None,
        strata: Mapping[str, Any] | None = None,
        pairs: Sequence[Sequence[str]] | None = None,
        omnibus: bool | None = None,
        covariates: Mapping[str, Any] | None = None,
        permutation_epochs: int = 10,
        permutation_seed: int = 314159,
        on_record: OnRecord | None = None,
        permutation_design: PermutationDesign | None = None,
        attributes: Mapping[str, Any] | None = None,
        process_group: ProcessGroup | bool | None = None,
    ) -> None:
        _check_model(model)
        self._access = Access(model, engine)
        if isinstance(statistics, str):
            raise AutoSpecError(f"statistics={statistics!r}: a list is needed, statistics=[{statistics!r}]")
        self.path = _checked_path(path)
        floor = floor or (CALIBRATED if engine == HOOKS else FORMULA)
        settings = check_settings(
            RecorderSettings,
            {
                "statistics": statistics,
                "every": every,
                "epochs": epochs,
                "leading": leading,
                "tolerance": tolerance,
                "directions": directions,
                "bins": bins,
                "engine": engine,
                "check_every": check_every,
                "floor": floor,
                "reduction": reduction,
                "permutations": permutations,
                "permutation_epochs": permutation_epochs,
            },
        )
        self.grouping = checked_grouping(groups, margins or {})
        given, model = model, unwrapped(model)
        self._model = model
        self._reduction = reduction
        self.schedule = Schedule(settings.every, settings.epochs)
        self.statistics = chosen_statistics(settings.statistics)
        self._certified = leading_spectra(settings)
        check_engine(engine, settings.statistics, check_every)
        _check_group_sizes(group_sizes, self.grouping)
        if permutations:
            if permutation_design is not None or engine != HOOKS:
                other = f"engine={engine!r}" if permutation_design is None else "permutation_design=..."
                raise AutoSpecError(f"permutations={permutations} and {other} do not go together")
            request = permutation_request(
                permutations,
                self.grouping,
                self.schedule,
                target_is_group=target_is_group,
                subjects=subjects,
                strata=strata,
                pairs=pairs,
                count=permutation_epochs,
                seed=permutation_seed,
                omnibus=omnibus,
                covariates=covariates,
            )
        elif omnibus or covariates:
            raise AutoSpecError(f"{'omnibus' if omnibus else 'covariates'}=...: needs permutations=1000 (or more)")
        if on_record is not None and not callable(on_record):
            raise AutoSpecError(f"on_record={on_record!r}: must be a function of a dict of numbers")
        self._on_record = on_record
        self._mean_loss = reduction == "mean"
        self._leading, self._directions, self._bins = settings.leading, settings.directions, settings.bins
        self._earlier = EarlierSubspaces(wanted=SUBSPACE in settings.statistics)
        self._constant = ConstantRows()
        self._scaler = scaler
        self._engine_name = engine
        sinks = Sinks(self._add, self._add_matrices, self._say_way)
        self._engine, self._uses = listening_engine(engine, model, layers, sinks, check_every)
        say_what_is_left_out(model)
        self._check = GradientCheck(self._keep)
        self._hooks = self._engine if isinstance(self._engine, HookListener) else None
        self._check.splits = self._hooks is None
        if self._hooks is not None:
            self._hooks.arrival_listener = self._check
        self._scale_check = ScaleCheck(self._layers(), wanted=scaler is None, check=self._check)
        wanted = any(WEIGHT in statistic.needs for statistic in self.statistics)
        watched = list({use.layer.name: use.layer for use in self._uses}.values())  # frozen ones, too
        self._previous_weights = PreviousWeights(watched, wanted)
        self._chains = chain_bounds(model)
        self._selection = layers
        self._floor = measured_floor(floor, model, self._layers(), self._hearing)
        self._header = Header(
            groups=self.grouping.names,
            margins=margins or {},
            group_sizes=group_sizes,
            attributes={"complete": False, "engine": engine, **(attributes or {})},
            layers={layer.name: layer_attributes(layer, engine, self._floor is not None) for layer in self._layers()},
            permutations=permutation_design,
        )
        self.permutation_s = 0.0
        self._file = SpectraFile(self.path, self._header, resume, overwrite)
        self._table = self._file.table
        may_wait = set(settings.statistics) <= set(SPECTRUM_NAMES) and self._certified is None
        self._pending = PendingRecords(self._table, settings.leading, self._certified, may_wait)
        self._subjects: GivenSubjects | SubjectRegister | None = None
        if permutation_design is not None:
            self._subjects = GivenSubjects(permutation_design)
        elif permutations:
            self._subjects = SubjectRegister(request, self._file.earlier_design)
            self._header.permutations = self._subjects.known_design
        else:
            self._header.permutations = self._file.earlier_design
        self.epoch = self._table.trained
        self._periodic = periodic
        self._closed = False
        self._compiled = is_compiled(model)
        self._spoilt = False
        self._checked = False
        self._warned: set[str] = set()
        self._batch: Batch | None = None
        self._context: contextlib._GeneratorContextManager[Batch] | None = None
        self._process_group = process_group
        self._processes: Processes | None = None
        self._has_met = False
        self._averaged: AveragedCheck | None = None
        self._groups = LastGroups()
        self._begin_sums()
        self._unclosed: weakref.finalize | None = None
        self._meet(given)

    def batch(
        self,
        group: Tensor | npt.ArrayLike,
        samples: Tensor | None = None,
        *,
        subject: Tensor | Iterable[Any] | None = None,
        weight: Tensor | npt.ArrayLike | None = None,
        share: float = 1.0,
    ) -> contextlib.AbstractContextManager[Batch]:
        """A context for the forward and backward pass of one batch.

        Args:
            group: (n,) the label of each sample, an index into groups; -1 for none.
            samples: (n,) which of all samples the batch holds, where ``subjects`` or a permutation design was given;
                None is all, in order.
            subject: (n,) whose each sample is, numbers or names, where labels of subjects are permuted.
            weight: (n,) what each sample's loss is multiplied by (class weights, numbers of counted tokens); None is 1.
            share: what the batch's loss is multiplied by as a whole, 1/k where gradients of k batches are accumulated.

        Returns:
            The context; in it stands the batch, which takes per-sample losses: ``batch.losses(losses)``.

        Raises:
            AutoSpecError: for labels outside the groups, a batch without a backward pass, and what a layer cannot
                explain.
        """
        self._meet(self._model)
        context = self._recording(group, samples, subject, weight, share)
        if self._batch is None:
            self._context = context
        return context

    @contextlib.contextmanager
    def _recording(
        self,
        group: Tensor | npt.ArrayLike,
        samples: Tensor | None,
        subject: Tensor | Iterable[Any] | None,
        weight: Tensor | npt.ArrayLike | None,
        share: float,
    ) -> Iterator[Batch]:
        self._check_open()
        if self._unclosed is None:  # before its first batch there is nothing to lose
            self._unclosed = weakref.finalize(self, _say_unclosed, self.path)
        if self._spoilt:
            raise AutoSpecError(
                "an earlier batch of this epoch raised after its backward pass had begun, so its sums are spoilt; "
                "go on from the last epoch with recorder.rewind(recorder.epoch)"
            )
        self._scale_check.raise_if_found()
        if not self.schedule.takes(self.epoch):
            with answering(self._processes):
                yield Batch(None)
            return
        with self._access.one_batch():
            yield from self._in_turn(group, samples, subject, weight, share)

    def _in_turn(
        self,
        group: Tensor | npt.ArrayLike,
        samples: Tensor | None,
        subject: Tensor | Iterable[Any] | None,
        weight: Tensor | npt.ArrayLike | None,
        share: float,
    ) -> Iterator[Batch]:
        """The one open batch."""
        groups = self._groups.of(group, self.grouping, self._uses[0])
        weights = loss_weights(weight, groups)
        whose = self._null.subjects_of(samples, subject, groups) if self._null else None
        self._batch = batch = Batch(groups, whose, weights, share)
        # factors are compared as they arrive; gradients that an engine splits, here
        unchecked = self._layers() if self._hooks is None and not self._checked else []
        self._check.begin()
        self._scale_check.begin()
        try:
            others = self._layers() if self._hooks is None else []
            with (
                answering(self._processes),
                name_checkpoints(self._engine_name) if self._hooks is None else contextlib.nullcontext(),
                leaf_gradients(unchecked) as left,
                self._check.noticing(others),
                self._following(),
                self._engine.listening(groups),
            ):
                yield batch
            if not batch.heard:
                raise AutoSpecError(self._nothing_heard())
            self._check.end()
            if unchecked and any(GRADIENT in statistic.needs for statistic in self.statistics):
                check_against(left, self._layers(), self._sums, self._loss_scale, self._engine_name)
                self._checked = True
            self._check_reduction(batch)
            self._count(batch, groups)
        except BaseException:
            self._spoilt = self._spoilt or batch.heard  # what it has added to the sums cannot be taken back
            raise
        finally:
            self._check.close()
            self._batch = None

    def take(self, batch: GivenBatch) -> None:
        """Add a batch whose gradients were had elsewhere (several sites', from what they sent) in place of ``batch``.

        Args:
            batch: its layers, samples and loss weights.

        Raises:
            AutoSpecError: for a layer that is not recorded.
        """
        self._check_open()
        if self.takes_now:
            add_given(self._sums, batch)

    @property
    def takes_now(self) -> bool:
        """Whether spectra are taken at the epoch that runs."""
        return self.schedule.takes(self.epoch)

    def _count(self, batch: Batch, groups: SampleGroups) -> None:
        """Count the samples of a batch that ended well; a step's closure made each a part of the gradient anew."""
        evaluations = self._check.evaluations
        entered = batch.entered_weights(self._mean_loss) * evaluations
        self._sums.count(groups, entered, None if batch.loss_sums is None else batch.loss_sums / evaluations)
        if self._null is not None and batch.subject is not None:
            losses = None if batch.sample_losses is None else batch.sample_losses / evaluations
            self._null.count(batch.subject, entered, losses)

    def check(self, batch: Any) -> LayerTable:
        """One table of all layers of the model: how the rows of each are traced, how it is recorded, or why not.

        The model runs once, forwards and backwards beside the weights; nothing of it is changed.

        Args:
            batch: what the model is called with: a tensor, a tuple of arguments, or a dict of keywords.

        Returns:
            The table; ``print`` shows it.
        """
        self._check_open()
        return layer_table(self._model, batch, watched=set(self.layers), engine=self._engine_name)

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
        self._check_between("end_epoch or record")
        last = self._table.last_epoch
        if step is not None and (isinstance(step, bool) or not isinstance(step, Integral)):
            raise AutoSpecError(f"step={step!r}: must be a whole number, above the one before")
        label = last + 1 if step is None else int(step)
        if label <= last:
            raise AutoSpecError(f"step={label} comes after {last}; steps must rise")
        curve = (loss, metric, validation_loss, validation_metric)
        if self._processes is not None:
            loss, metric, validation_loss, validation_metric = self._processes.mean(curve)
        was_taken = self.schedule.takes(self.epoch)
        if was_taken:
            self._join()
            if not self._sums.batches:
                raise AutoSpecError(f"epoch {label} ended without a recorder.batch(...)")
            self._scale_check.raise_if_found()
            if self._check.half_precision and self._scale_check.is_undecided:
                self._warn_once(
                    "scaler",
                    "adjoints came in half precision, and no optimizer's step has shown whether a GradScaler "
                    "multiplied the loss; if one did, give it to the recorder: SpectralRecorder(..., scaler=scaler)",
                )
            self._check_loss(loss)
            self._settle_floor()
            self._previous_weights.give(self._sums)
            if self._processes is None:
                self._pending.add(label, self._sums)
            else:  # whose records are of sums that all have
                self._table.append({RECORDED_EPOCHS: label, **self._measured_together(label)}, EPOCH)
            self._earlier.replace(self._sums, self.epoch)
            self._previous_weights.replace(self.epoch)
        if self._null is not None and self._sums.batches:
            self._permute(label)
        curves = dict(zip(TRAINING_CURVES, (loss, metric, validation_loss, validation_metric), strict=True))
        self._table.append({TRAINING_EPOCHS: label, **curves}, TRAINING_EPOCH)
        self.epoch += 1
        if was_taken or self._subjects is not None:
            self._begin_sums()
        if self._periodic and self.path is not None and self._file.is_due:
            self.write()
        is_told = self._processes is None or self._processes.writes
        if self._on_record is not None and is_told and self.table.epochs[-1:] == [label]:
            self._on_record(record_scalars(self.table, self.grouping))

    def _permute(self, label: int) -> None:
        """Store what the permuted partitions of the record that ends give."""
        assert self._null is not None
        assert self._subjects is not None
        found = self._null.measured(label, self._sums.relative_floors())
        self._header.permutations = self._subjects.design()
        if found:
            self._table.append(found, PERMUTATION_EPOCH)
        self.permutation_s += self._null.cost_s
        late = getattr(self._subjects, "late", [])
        if late:
            self._warn_once(
                "late subjects",
                f"subject {late[0]!r} came after labels were permuted (and {len(late) - 1} more); the tests are of the "
                "subjects of the first epoch",
            )

    def write(self) -> None:
        """Write the file now; AutoSpecError where that fails, with what stood there before untouched."""
        self._access.check_process()
        self._pending.settle()
        self._file.write()

    @property
    def spectra(self) -> Spectra:
        """Everything recorded so far, labelled; with or without a file."""
        self._pending.settle()
        return self._file.spectra()

    def close(self, complete: bool = True) -> None:
        """Take all hooks off the model and write the file; ``complete`` says whether the run ended well."""
        if self._closed:
            return
        self._access.check_process()
        self._closed = True
        if self._unclosed is not None:
            self._unclosed.detach()
        unrecorded = self._sums.batches
        self._engine.close()
        self._scale_check.end()
        in_batch = self._batch is not None
        self._header.attributes["complete"] = complete and not in_batch
        self.write()
        if in_batch and complete:
            raise AutoSpecError("recorder.close() came inside recorder.batch(...): the batch is lost, the rest written")
        if unrecorded and complete and self.path is not None:
            self._say_unrecorded(unrecorded)

    def _say_unrecorded(self, batches: int) -> None:
        """Say that the last batches are in no record: an error where there is none at all."""
        if not self.table.trained:
            raise AutoSpecError(
                f"nothing was recorded: {batches} batches, but no recorder.end_epoch() (or recorder.record(step)) "
                "after them, which stores the spectra"
            )
        warnings.warn(
            f"{batches} batches came after the last recorder.end_epoch() and are not in the file",
            AutoSpecWarning,
            stacklevel=3,
        )

    def state_dict(self, drop_open_record: bool = False) -> dict[str, Any]:
        """What a checkpoint needs to go on from here; the file is written, so that it is never behind it.

        ``drop_open_record`` takes the state of the last record, where batches have come since.
        """
        if not drop_open_record:
            self._check_between("state_dict")
        if self._sums.batches and not drop_open_record:
            raise AutoSpecError("a recorder's state is taken between epochs, after end_epoch")
        self.write()
        arrays = {} if self.path else {a.field.path: torch.as_tensor(a.values.copy()) for a in self.table}
        dimensions = {} if self.path else {a.field.path: list(a.field.dimensions) for a in self.table}
        state = {"epoch": self.epoch, "arrays": arrays, "dimensions": dimensions, "of": self._named()}
        way = {"way": self._engine.chosen} if isinstance(self._engine, FastEngine) else {}
        floor = {} if self._floor is None else self._floor.state_dict()
        blocks = {} if self._certified is None else {"leading": self._certified.state_dict()}
        subjects = self._subjects.state_dict() if isinstance(self._subjects, SubjectRegister) else {}
        before = {"subspaces": self._earlier.state_dict(), "weights": self._previous_weights.state_dict()}
        return {**state, **way, **blocks, **before, "floor": floor, "subjects": subjects}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: what the file holds beyond it is dropped, and will be recomputed."""
        self._check_open()
        check_state(state, self._named())
        for path, values in state["arrays"].items():
            array = values.numpy()
            self.table.restore(Field(path, tuple(state["dimensions"][path]), array.dtype.name), array)
        self._earlier.load_state_dict(state.get("subspaces", {}))
        if self._certified is not None:
            self._certified.load_state_dict(state.get("leading", {}))
        self._previous_weights.load_state_dict(state.get("weights", {}))
        if isinstance(self._engine, FastEngine):
            self._engine.choose(state.get("way"))  # another would differ in the last digits
        if self._floor is not None:
            self._floor.load_state_dict(state.get("floor", {}))
        if isinstance(self._subjects, SubjectRegister) and state.get("subjects"):
            self._subjects.load_state_dict(state["subjects"])
            self._header.permutations = self._subjects.known_design
        self.rewind(int(state["epoch"]))

    def rewind(self, epoch: int) -> None:
        """Keep so many epochs (or steps), drop the rest and go on there; AutoSpecError where there are not as many."""
        self._check_open()
        if epoch > self.table.trained:
            held = f"{self.path or 'the recorder'} ends before epoch {self.table.trained}"
            raise AutoSpecError(f"{held}, but the checkpoint is of epoch {epoch}")
        self.table.keep_first(epoch)
        self._earlier.forget(epoch)
        if self._certified is not None:
            self._certified.forget(epoch)
        self._previous_weights.forget(epoch)
        if self._floor is not None:
            self._floor.forget(epoch)
        self.epoch = epoch
        if self._batch is not None and self._context is not None:
            self._context.gen.close()  # left open by an exception
        self._spoilt = False
        self._scale_check.end()
        self._begin_sums()

    @property
    def table(self) -> SpectraTable:
        """The arrays of everything recorded so far."""
        self._pending.settle()
        return self._table

    @property
    def layers(self) -> list[str]:
        """The names of the watched layers, in the model's order."""
        return [layer.name for layer in self._layers()]

    def __enter__(self) -> SpectralRecorder:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)

    # --- between the engine and the sums -----------------------------------------------------------------------

    def _layers(self) -> list[Layer]:
        """Every watched weight that trains once, in the model's order."""
        return list({use.layer.name: use.layer for use in self._uses if use.layer.is_trained}.values())

    def _begin_sums(self) -> None:
        """Nothing is summed up yet: the state after every record."""
        self._sums = self._new_sums(self._constant)
        if self._floor is not None:
            self._floor.begin(len(self._table.epochs) + len(self._pending), self._new_sums)
        subjects = self._subjects
        due = subjects is not None and subjects.is_due(self.epoch)
        self._null = PermutationSums(subjects, self._uses) if subjects is not None and due else None

    def _meet(self, model: nn.Module) -> None:
        """Find the processes that train together, where there are any, and hold their recorders against one another."""
        if self._has_met or not is_one_of_several():
            return
        self._has_met = True
        self._processes = find_processes(self._process_group, model)
        if self._processes is None:
            return
        check_served(self._engine_name, self.statistics)
        if isinstance(self._subjects, SubjectRegister):
            raise AutoSpecError(
                "permutations=... in several processes: each meets its own subjects alone; design them beforehand "
                "(permutation_design=...), or record permutations in one process"
            )
        self._file.is_written_here = self._processes.writes
        self._averaged = AveragedCheck(self._processes)
        self._scale_check.also_averaged(self._averaged)
        self._header.attributes["processes"] = self._processes.size
        self._processes.agree(
            {
                "groups": self.grouping.names,
                "layers": self.layers,
                "statistics": [statistic.name for statistic in self.statistics],
                "every": self.schedule.every,
                "epochs": self.schedule.epochs,
                "epoch": self.epoch,
            }
        )

    def _join(self) -> None:
        """Add up what the processes recorded of their samples."""
        if self._processes is None or self._averaged is None:
            return
        warning = self._averaged.compare(is_first=not len(self.table.epochs), model=self._model)
        if warning:
            self._warn_once("averaged", warning)
        join(self._sums, self._processes, self._averaged.share)
        if self._floor is not None:
            self._floor.join(self._processes, self._averaged.share)
        if self._null is not None:
            self._null.join(self._processes, self._averaged.share)

    def _measured_together(self, label: int) -> Measured:
        """Every quantity of the record that ends, of which each process takes a part."""
        assert self._processes is not None
        return measured_together(self._sums, self._processes, label, self._leading, self._certified)

    def _new_sums(self, constant: ConstantRows | None = None) -> EpochSums:
        return EpochSums(
            self._uses,
            self.grouping,
            self.statistics,
            bins=self._bins,
            chains=self._chains,
            warn=self._warn,
            directions=self._directions,
            earlier=self._earlier.of_layers,
            constant=constant,
        )

    def _following(self) -> contextlib.AbstractContextManager[None]:
        """The context that repeats a batch in float64, where the floor is measured."""
        return contextlib.nullcontext() if self._floor is None else self._floor.following()

    @contextlib.contextmanager
    def _hearing(self, model: nn.Module, sums: EpochSums) -> Iterator[None]:
        """A context in which the backward passes of a copy of the model are added to ``sums``."""
        assert self._batch is not None
        assert self._batch.groups is not None
        groups = self._batch.groups

        def add(use: Use, factors: GradientFactors, owners: RowOwners) -> None:
            sums.add(use, factors.scaled(1 / self._loss_scale), groups, owners)

        def add_matrices(layer: Layer, gradients: Tensor, eps: float) -> None:
            sums.add_matrices(layer, gradients / self._loss_scale, eps)

        way = self._engine.chosen if isinstance(self._engine, FastEngine) else None
        sinks = Sinks(add, add_matrices, lambda way: None)
        engine, _ = listening_engine(way or self._engine_name, model, self._selection, sinks, None)
        if isinstance(engine, HookListener) and self._hooks is not None:
            engine.borrow_traces(self._hooks)
        failed = False
        try:
            with engine.listening(groups):
                try:
                    yield
                except BaseException:
                    failed = True
                    raise
        except AutoSpecError as error:
            if failed or self._floor is None:
                raise
            self._floor.refusal = str(error)  # the copy's own: the batch itself is recorded

    def _settle_floor(self) -> None:
        """Give the sums of the record that ends what is known of their rounding."""
        if self._floor is None:
            return
        self._floor.settle(self._sums, self.epoch)
        if self._floor.refusal:
            self._warn_once(
                "",
                f"the noise floor of epoch {self.epoch} could not be measured in float64 ({self._floor.refusal}); "
                "measurements of earlier records stand in, or the formula where there are none, which knows the last "
                "product's rounding alone; ask for it with floor='formula'",
            )

    def _add(self, use: Use, factors: GradientFactors, owners: RowOwners) -> None:
        assert self._batch is not None
        assert self._batch.groups is not None
        if self._scaler is not None:
            factors = factors.scaled(1 / self._loss_scale)
        self._batch.heard = True
        if use.layer.name not in self._header.layers:  # it was frozen until now
            attributes = layer_attributes(use.layer, self._engine_name, self._floor is not None)
            self._header.layers |= {use.layer.name: attributes}
        self._sums.add(use, factors, self._batch.groups, owners)
        if self._null is not None and self._batch.subject is not None:
            self._null.add(use, factors, self._batch.subject, owners)

    def _add_matrices(self, layer: Layer, gradients: Tensor, eps: float) -> None:
        assert self._batch is not None
        self._batch.heard = True
        self._sums.add_matrices(layer, gradients if self._scaler is None else gradients / self._loss_scale, eps)

    def _say_way(self, way: str) -> None:
        """The file says which way the fast engine goes."""
        self._header.attributes["engine_way"] = way

    def _keep(self, layer: Layer) -> Callable[[], None]:
        """Copy what is summed up of a layer; calling the result puts it back."""
        kept = [self._sums.keep(layer), *([self._null.keep(layer)] if self._null else [])]

        def put_back() -> None:
            for restore in kept:
                restore()

        return put_back

    def _nothing_heard(self) -> str:
        """Why no watched layer was heard in a batch."""
        layer = self._check.unexplained
        if layer is not None and self._compiled:
            return "no watched layer was heard; a compiled model must be given to the recorder before the first call"
        if layer is not None:
            return (
                f"a gradient reached layer {layer.name!r}, but none of its module's calls in this batch did; call the "
                "model inside recorder.batch(...), and its layers as modules"
            )
        names = ", ".join(repr(name) for name in self._header.layers)
        if self._check.passes:
            return (
                f"the backward passes of the batch reached no watched weight ({names}), as those of "
                "torch.autograd.grad and backward(inputs=...) do not; call loss.backward() inside recorder.batch(...)"
            )
        compiled = "; a compiled model must be given to the recorder before the first call" * self._compiled
        return (
            f"the batch ended without a backward pass through any watched layer ({names}); "
            f"call loss.backward() inside recorder.batch(...){compiled}"
        )

    def _check_reduction(self, batch: Batch) -> None:
        """Warn where the samples' losses entered the loss with other weights than the recorder was told of."""
        if batch.loss_shares is None or batch.weight is None:
            return
        shares = batch.loss_shares / self._loss_scale
        told = batch.entered_weights(self._mean_loss)
        if bool(((shares - told).abs() > 1e-3 * told.max()).any()):
            worst = int((shares - told).abs().argmax())
            self._warn_once(
                "reduction",
                f"the loss of sample {worst} enters the loss with weight {float(shares[worst]):.4g}, but "
                f"reduction={self._reduction!r} says {float(told[worst]):.4g}; scaled spectra use the latter. Choose "
                "the other reduction, or give recorder.batch(group, weight=...), or share=1/k where gradients of k "
                "batches are accumulated",
            )

    def _check_loss(self, loss: float | None) -> None:
        """Warn where an epoch's loss, of one batch, is the sum of the samples' and their mean was told, or back."""
        if self._processes is not None:
            return  # a mean over processes is neither
        mean, total = self._sums.mean_and_total_loss
        if loss is None or mean is None or total is None or math.isclose(mean, total, rel_tol=1e-3):
            return
        told, other = (mean, total) if self._mean_loss else (total, mean)
        if math.isclose(loss, other, rel_tol=1e-3) and not math.isclose(loss, told, rel_tol=1e-3):
            self._warn_once(
                "reduction",
                f"the loss is {loss:.4g}, but reduction={self._reduction!r} of the samples' losses is {told:.4g}; "
                "scaled spectra use the latter, so choose the other reduction",
            )

    @property
    def _loss_scale(self) -> float:
        """What the loss was multiplied by before its backward pass."""
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def _check_open(self) -> None:
        if self._closed:
            raise AutoSpecError("the recorder is closed; SpectralRecorder(..., resume=True) goes on with its file")
        self._access.check_process()

    def _check_between(self, call: str) -> None:
        """Refuse a call that belongs between batches."""
        if self._batch is not None:
            raise AutoSpecError(f"{call} inside recorder.batch(...): call it after the batch")

    def _named(self) -> dict[str, Any]:
        """The groups and the matrices' shapes, by which a state is told from that of another recorder."""
        shapes = {use.layer.name: list(use.layer.shape) for use in self._uses}
        return {"groups": list(self.grouping.names), "layers": shapes}

    def _warn(self, layer: str, message: str) -> None:
        self._warn_once(layer, f"layer {layer!r}: {message}")

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(message, AutoSpecWarning, stacklevel=6)


def _checked_path(path: str | Path | None) -> Path | None:
    if not (path is None or isinstance(path, str | os.PathLike)):
        raise AutoSpecError(f"path={path!r}: must be a path as text, or None to keep the spectra in memory")
    if path is not None and Path(path).is_dir():
        raise AutoSpecError(f"path={str(path)!r} is a folder; name a file in it, such as {Path(path, 'spectra.h5')}")
    return None if path is None else Path(path)


def _say_unclosed(path: Path | None) -> None:
    """Said where a recorder is dropped, or the program ends, before ``close``."""
    if path is not None:
        warnings.warn(
            f"the recorder of {path} was never closed, so that its last epochs may be missing; use "
            "`with SpectralRecorder(...) as recorder:` or recorder.close()",
            AutoSpecWarning,
            stacklevel=2,
        )


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise AutoSpecError(
            f"model={type(model).__module__}.{type(model).__name__}: the model itself is needed, a torch.nn.Module"
        )


def _check_group_sizes(group_sizes: Sequence[int] | None, grouping: Grouping) -> None:
    if group_sizes is not None and len(group_sizes) != grouping.reported:
        raise AutoSpecError(
            f"group_sizes has {len(group_sizes)} numbers, but there are {grouping.reported} groups to report: "
            f"{', '.join(grouping.names)}"
        )
