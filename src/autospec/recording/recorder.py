"""The recorder: what a training loop talks to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from autospec.capture.copies import Uncopied
from autospec.capture.engines import Sinks, by_layer
from autospec.capture.layers import Use, say_what_is_left_out
from autospec.capture.row_owners import RowOwners
from autospec.capture.selection import Selection
from autospec.errors import AutoSpecError
from autospec.recording.access import Access
from autospec.recording.batch import Batch, BatchLabels
from autospec.recording.batches import Batches
from autospec.recording.given_batch import GivenBatch, add_given
from autospec.recording.layer_table import LayerTable, layer_table
from autospec.recording.listening import Listening
from autospec.recording.measured_floor import measured_floor
from autospec.recording.meeting import Meeting
from autospec.recording.notices import Notices
from autospec.recording.open_record import OpenRecord
from autospec.recording.previous_records import PreviousRecords
from autospec.recording.processes import unwrapped
from autospec.recording.record_scalars import OnRecord, record_scalars
from autospec.recording.recording_request import (
    check_callback,
    check_group_sizes,
    check_model,
    file_path,
    recording_request,
)
from autospec.recording.records import Records, next_label
from autospec.recording.sharded import floor_of, refuse_unserved
from autospec.spectra.factors import GradientFactors
from autospec.store.file import SpectraFile
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.read import Spectra
from autospec.store.schema import GRADIENT, TRAINING_CURVES, TRAINING_EPOCH, TRAINING_EPOCHS
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
            (a backward pass per group, too), "fused" (no pass per group; for layers with a rule). By layer, of patterns
            and "hooks" or "per_group": ``{"mixer.*": "per_group", "*": "hooks"}``, the first that fits; the modules of
            the latter's layers run again beside training, which is the same to the bit.
        check_every: with the engines but ``hooks``, prove anew at every k-th batch what they rest on (an unsplit pass,
            a trace of rows); None: at so many that it costs 1 %, and early where values could change it.
        floor: how the noise floor is had: "measured" repeats every recorded batch in float64 and compares, at about the
            cost of recording it twice more; "calibrated" does so at records 0, 1, 2, 3, 5, 8, 12, 18 and so on, and
            between them takes three times what the last three measurements say, which about 0.04 % of values exceed;
            "formula" counts the rounding of the last product alone. None is calibrated with ``hooks``, and the formula
            with the engines that are there to be cheap.
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
            (``DistributedDataParallel``, ``fully_shard``, or the default group of ``torch.distributed``), False is this
            one alone.
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
        engine: str | Mapping[str, str] = "hooks",
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
        check_model(model)
        engine, engines = by_layer(engine)
        refuse_unserved(model, engines or engine, floor, process_group)
        self.path = file_path(path)
        request = recording_request(
            groups,
            margins or {},
            settings={
                "statistics": statistics,
                "every": every,
                "epochs": epochs,
                "leading": leading,
                "tolerance": tolerance,
                "directions": directions,
                "bins": bins,
                "engine": engine,
                "check_every": check_every,
                "floor": floor or floor_of(model, engine),
                "reduction": reduction,
                "permutations": permutations,
                "permutation_epochs": permutation_epochs,
            },
            permutations={
                "target_is_group": target_is_group,
                "subjects": subjects,
                "strata": strata,
                "pairs": pairs,
                "omnibus": omnibus,
                "covariates": covariates,
                "seed": permutation_seed,
            },
            is_designed=permutation_design is not None,
            engines=engines,
        )
        check_group_sizes(group_sizes, request.grouping)
        check_callback(on_record)
        self.grouping, self.schedule, self.statistics = request.grouping, request.schedule, request.statistics
        self._access = Access(model, engine, self.path)
        self._notices = Notices()
        self._model = unwrapped(model)
        self._record = OpenRecord(request.schedule, scaler)
        sinks = Sinks(self._add, self._record.add_matrices, self._say_way)
        self._listening = Listening(self._model, request.settings, layers, engines, sinks)
        say_what_is_left_out(self._model)
        trained = self._listening.trained
        hearing = partial(self._listening.beside, self._record)
        floor_measurement = measured_floor(request.settings.floor, self._model, trained, hearing)
        self._previous = PreviousRecords(request, self._listening, floor_measurement)
        is_measured = floor_measurement is not None
        self._header = Header(
            groups=request.grouping.names,
            margins=margins or {},
            group_sizes=group_sizes,
            attributes={"complete": False, "engine": engine, **(attributes or {})},
            layers={layer.name: self._listening.attributes(layer, is_measured) for layer in trained},
            permutations=permutation_design,
        )
        self._file = SpectraFile(self.path, self._header, resume, overwrite)
        self._records = Records(request, self._listening, self._record, self._previous, self._file, self._notices)
        self._meeting = Meeting(request, process_group)
        self._batches = Batches(
            request,
            self._listening,
            self._record,
            floor_measurement,
            self._meeting,
            self._access,
            self._notices,
        )
        self._on_record = on_record
        self._periodic = periodic
        self._record.epoch = self._file.table.trained
        self._records.begin()
        self._meet(model)

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
        return self._batches.open(BatchLabels(group, samples, subject, weight, share))

    def take(self, batch: GivenBatch) -> None:
        """Add a batch whose gradients were had elsewhere (several sites', from what they sent) in place of ``batch``.

        Args:
            batch: its layers, samples and loss weights.

        Raises:
            AutoSpecError: for a layer that is not recorded.
        """
        self._access.check_open()
        if self.takes_now:
            add_given(self._record.sums, batch)

    @property
    def takes_now(self) -> bool:
        """Whether spectra are taken at the epoch that runs."""
        return self._record.is_taken

    @property
    def epoch(self) -> int:
        """How many epochs (or steps) have ended."""
        return self._record.epoch

    def check(self, batch: Any) -> LayerTable:
        """One table of all layers of the model: how the rows of each are traced, how it is recorded, or why not.

        The model runs once, forwards and backwards beside the weights; nothing of it is changed.

        Args:
            batch: what the model is called with: a tensor, a tuple of arguments, or a dict of keywords.

        Returns:
            The table; ``print`` shows it.
        """
        self._access.check_open()
        listening = self._listening
        return layer_table(self._model, batch, set(self.layers), listening.name, listening.engines)

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
        self._access.check_open()
        self._check_between("end_epoch or record")
        label = next_label(step, self._file.table.last_epoch)
        curves = (loss, metric, validation_loss, validation_metric)
        was_taken = self.takes_now
        if was_taken:
            curves = self._records.end(label, curves, self._meeting, self._batches)
        else:
            curves = self._meeting.between(curves)
        self._records.permute(label)
        self._file.table.append(
            {TRAINING_EPOCHS: label, **dict(zip(TRAINING_CURVES, curves, strict=True))}, TRAINING_EPOCH
        )
        self._record.epoch += 1
        if was_taken or self._records.permutes:
            self._records.begin()
        if self._periodic and self.path is not None and self._file.is_due:
            self.write()
        if self._on_record is not None and self._meeting.writes and self.table.epochs[-1:] == [label]:
            self._on_record(record_scalars(self.table, self.grouping))

    def write(self) -> None:
        """Write the file now; AutoSpecError where that fails, with what stood there before untouched."""
        self._access.check_process()
        self._records.settle()
        self._file.write()

    @property
    def spectra(self) -> Spectra:
        """Everything recorded so far, labelled; with or without a file."""
        self._records.settle()
        return self._file.spectra()

    def close(self, complete: bool = True) -> None:
        """Take all hooks off the model and write the file; ``complete`` says whether the run ended well."""
        if self._access.is_closed:
            return
        self._access.close()
        unrecorded = self._record.sums.batches
        self._listening.engine.close()
        self._batches.scale_check.end()
        in_batch = self._record.batch is not None
        self._header.attributes["complete"] = complete and not in_batch
        self.write()
        if in_batch and complete:
            raise AutoSpecError("recorder.close() came inside recorder.batch(...): the batch is lost, the rest written")
        if unrecorded and complete and self.path is not None:
            self._records.say_unrecorded(unrecorded)

    def state_dict(self, drop_open_record: bool = False) -> dict[str, Any]:
        """What a checkpoint needs to go on from here; the file is written, so that it is never behind it.

        ``drop_open_record`` takes the state of the last record, where batches have come since.
        """
        if not drop_open_record:
            self._check_between("state_dict")
        if self._record.sums.batches and not drop_open_record:
            raise AutoSpecError("a recorder's state is taken between epochs, after end_epoch")
        self.write()
        return self._records.state_dict(has_file=self.path is not None)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: what the file holds beyond it is dropped, and will be recomputed."""
        self._access.check_open()
        self._records.load_state_dict(state)
        self.rewind(int(state["epoch"]))

    def rewind(self, epoch: int) -> None:
        """Keep so many epochs (or steps), drop the rest and go on there; AutoSpecError where there are not as many."""
        self._access.check_open()
        if epoch > self.table.trained:
            held = f"{self.path or 'the recorder'} ends before epoch {self.table.trained}"
            raise AutoSpecError(f"{held}, but the checkpoint is of epoch {epoch}")
        self._records.keep_first(epoch)
        self._batches.give_up()
        self._records.begin()

    @property
    def table(self) -> SpectraTable:
        """The arrays of everything recorded so far."""
        self._records.settle()
        return self._file.table

    @property
    def layers(self) -> list[str]:
        """The names of the watched layers, in the model's order."""
        return [layer.name for layer in self._listening.trained]

    @property
    def permutation_s(self) -> float:
        """How many seconds permuted partitions have taken."""
        return self._records.permutation_s

    def __enter__(self) -> SpectralRecorder:
        self._access.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)

    def _add(self, use: Use, factors: GradientFactors, owners: RowOwners) -> None:
        """Take one weight's factors from the engine; the first of one that was frozen until now makes it a layer."""
        if use.layer.name not in self._header.layers:
            attributes = self._listening.attributes(use.layer, self._previous.floor is not None)
            self._header.layers |= {use.layer.name: attributes}
        self._record.add(use, factors, owners)

    def _say_way(self, way: str) -> None:
        """The file says which way the fast engine goes."""
        self._header.attributes["engine_way"] = way

    def _meet(self, model: nn.Module) -> None:
        """Find the processes that train together, and hold their recorders against one another."""
        processes = self._meeting.find(model, self._listening.hooks)
        averaged = self._meeting.averaged
        if processes is None or averaged is None:
            return
        self._file.is_written_here = processes.writes
        self._batches.scale_check.also_averaged(averaged)
        self._header.attributes["processes"] = processes.size
        self._meeting.agree(self.layers, self.epoch)

    def _check_between(self, call: str) -> None:
        """Refuse a call that belongs between batches."""
        if self._record.batch is not None:
            raise AutoSpecError(f"{call} inside recorder.batch(...): call it after the batch")
