"""What happens in a batch: the engine listens, what it hands on is compared, the samples are counted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from autospec.capture.checkpoints import name_checkpoints
from autospec.capture.leaf_gradients import leaf_gradients
from autospec.errors import AutoSpecError
from autospec.recording.access import Access
from autospec.recording.batch import Batch, BatchLabels, LastGroups, loss_weights
from autospec.recording.gradient_check import GradientCheck, check_against
from autospec.recording.listening import Listening
from autospec.recording.lost_processes import answering
from autospec.recording.measured_floor import MeasuredFloor
from autospec.recording.meeting import Meeting
from autospec.recording.notices import Notices
from autospec.recording.open_record import OpenRecord
from autospec.recording.recording_request import RecordingRequest
from autospec.recording.reduction_check import ReductionCheck
from autospec.recording.scale_check import ScaleCheck
from autospec.recording.sharded import refuse_no_samples
from autospec.store.schema import GRADIENT


class Batches:
    """Opens the batches of a recorder, one after the other.

    Args:
        request: what is recorded.
        listening: to the model.
        record: what batches add to.
        floor: repeats batches in float64 where the noise floor is measured, else None.
        meeting: with the processes that train together.
        access: who may open a batch.
        notices: says what does not fit.

    Attributes:
        gradient_check: compares what the engine hands on with what backward left.
        scale_check: compares that with what the optimizer gets.
    """

    def __init__(
        self,
        request: RecordingRequest,
        listening: Listening,
        record: OpenRecord,
        floor: MeasuredFloor | None,
        meeting: Meeting,
        access: Access,
        notices: Notices,
    ) -> None:
        self._grouping = request.grouping
        self._takes_gradients = any(GRADIENT in statistic.needs for statistic in request.statistics)
        self._listening = listening
        self._record = record
        self._floor = floor
        self._meeting = meeting
        self._access = access
        self._notices = notices
        self._reduction = ReductionCheck(request.settings.reduction, notices)
        self.gradient_check = GradientCheck(record.keep)
        self.gradient_check.splits = listening.hooks is None
        if listening.hooks is not None:
            listening.hooks.arrival_listener = self.gradient_check
        self.scale_check = ScaleCheck(listening.trained, wanted=not record.has_scaler, check=self.gradient_check)
        self._groups = LastGroups()
        self._context: contextlib._GeneratorContextManager[Batch] | None = None
        self._is_spoilt = False
        self._is_compared = False

    def open(self, labels: BatchLabels) -> contextlib.AbstractContextManager[Batch]:
        """A context for the forward and backward pass of a batch."""
        context = self._opened(labels)
        if self._record.batch is None:
            self._context = context
        return context

    def give_up(self) -> None:
        """Close a batch that an exception left open, and forget that one spoilt the record."""
        if self._record.batch is not None and self._context is not None:
            self._context.gen.close()
        self._is_spoilt = False
        self.scale_check.end()

    def compare_epoch(self, loss: float | None) -> None:
        """Look at what the batches of the record that ends tell against it; ``loss`` is its mean loss, if known.

        Raises:
            AutoSpecError: where a scaler multiplied the loss that the recorder was not told of.
        """
        self.scale_check.raise_if_found()
        if self.gradient_check.half_precision and self.scale_check.is_undecided:
            self._notices.warn(
                "scaler",
                "adjoints came in half precision, and no optimizer's step has shown whether a GradScaler "
                "multiplied the loss; if one did, give it to the recorder: SpectralRecorder(..., scaler=scaler)",
            )
        self._reduction.compare_epoch(self._record.sums, loss)

    @contextlib.contextmanager
    def _opened(self, labels: BatchLabels) -> Iterator[Batch]:
        self._access.enter()
        if self._is_spoilt:
            raise AutoSpecError(
                "an earlier batch of this epoch raised after its backward pass had begun, so its sums are spoilt; "
                "go on from the last epoch with recorder.rewind(recorder.epoch)"
            )
        self.scale_check.raise_if_found()
        if not self._record.is_taken:
            with answering(self._meeting.processes):
                yield Batch(None)
            return
        with self._access.one_batch():
            yield from self._recorded(labels)

    def _recorded(self, labels: BatchLabels) -> Iterator[Batch]:
        """One batch of an epoch at which spectra are taken."""
        record = self._record
        if self._listening.hooks is not None and self._listening.hooks.tracer.any_wants is not None:
            refuse_no_samples(labels.group)
        groups = self._groups.of(labels.group, self._grouping, self._listening.uses[0])
        weight = loss_weights(labels.weight, groups)
        if labels.weight is not None and self._listening.hooks is None:
            groups = replace(groups, weight=weight)
        subject = None
        if record.permutations is not None:
            subject = record.permutations.subjects_of(labels.samples, labels.subject, groups)
        record.batch = batch = Batch(groups, subject, weight, labels.share)
        self.gradient_check.begin()
        self.scale_check.begin()
        # factors are compared as they arrive; gradients that an engine splits, once, when the batch is over
        splits = self._listening.hooks is None
        trained = self._listening.trained if splits else []
        compared = [] if self._is_compared else trained
        try:
            with (
                answering(self._meeting.processes),
                name_checkpoints(self._listening.name) if splits else contextlib.nullcontext(),
                leaf_gradients(compared) as left,
                self.gradient_check.noticing(trained),
                contextlib.nullcontext() if self._floor is None else self._floor.following(),
                self._listening.engine.listening(groups),
            ):
                yield batch
            if not batch.heard:
                raise AutoSpecError(self._why_nothing_was_heard())
            self.gradient_check.end()
            if compared and self._takes_gradients:
                check_against(left, self._listening.trained, record.sums, record.loss_scale, self._listening.name)
                self._is_compared = True
            self._reduction.compare_batch(batch, record.loss_scale)
            record.count(batch, self._reduction.is_mean, self.gradient_check.evaluations)
        except BaseException:
            self._is_spoilt = self._is_spoilt or batch.heard  # what it has added to the sums cannot be taken back
            raise
        finally:
            self.gradient_check.close()
            record.batch = None

    def _why_nothing_was_heard(self) -> str:
        """Why no watched layer was heard in a batch."""
        layer = self.gradient_check.unexplained
        if layer is not None and self._listening.is_compiled:
            return "no watched layer was heard; a compiled model must be given to the recorder before the first call"
        if layer is not None:
            return (
                f"a gradient reached layer {layer.name!r}, but none of its module's calls in this batch did; call the "
                "model inside recorder.batch(...), and its layers as modules"
            )
        names = ", ".join(repr(layer.name) for layer in self._listening.trained or self._listening.watched)
        if self.gradient_check.passes:
            return (
                f"the backward passes of the batch reached no watched weight ({names}), as those of "
                "torch.autograd.grad and backward(inputs=...) do not; call loss.backward() inside recorder.batch(...)"
            )
        compiled = "; a compiled model must be given to the recorder before the first call"
        return (
            f"the batch ended without a backward pass through any watched layer ({names}); "
            f"call loss.backward() inside recorder.batch(...){compiled * self._listening.is_compiled}"
        )
