"""What happens at the end of an epoch: what was summed up becomes a row of the table, and the next record begins."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from numbers import Integral
from typing import Any

import torch

from autospec.capture.chains import chain_bounds
from autospec.capture.fast import FastEngine
from autospec.errors import AutoSpecError, AutoSpecWarning
from autospec.recording.batches import Batches
from autospec.recording.epoch_sums import EpochSums
from autospec.recording.joint_curves import Curve
from autospec.recording.joint_epoch import measured_together
from autospec.recording.listening import Listening
from autospec.recording.meeting import Meeting
from autospec.recording.notices import Notices
from autospec.recording.open_record import OpenRecord
from autospec.recording.pending_records import PendingRecords
from autospec.recording.permutation_sums import PermutationSums
from autospec.recording.previous_records import PreviousRecords
from autospec.recording.recording_request import RecordingRequest
from autospec.recording.resumption import check_state
from autospec.recording.subject_register import GivenSubjects, SubjectRegister
from autospec.store.file import SpectraFile
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.schema import EPOCH, PERMUTATION_EPOCH, RECORDED_EPOCHS, SPECTRUM_NAMES, Field


class Records:
    """The records of a run: the open one, those whose spectra wait to be computed, and those in the table.

    Args:
        request: what is recorded.
        listening: to the model.
        record: the open one.
        previous: what a record takes over from those before it.
        file: the table, and what the file says beside it.
        notices: says what is amiss.

    Attributes:
        pending: those that wait.
        permutation_s: seconds that permuted partitions took.
    """

    def __init__(
        self,
        request: RecordingRequest,
        listening: Listening,
        record: OpenRecord,
        previous: PreviousRecords,
        file: SpectraFile,
        notices: Notices,
    ) -> None:
        settings = request.settings
        self._grouping = request.grouping
        self._listening = listening
        self._record = record
        self._previous = previous
        self._header = file.header
        self._table = file.table
        self._subjects = self._find_subjects(request, file.earlier_design)
        self._notices = notices
        self._leading = settings.leading
        # other statistics look at more than the sums of gradients, or at the record before
        may_wait = set(settings.statistics) <= set(SPECTRUM_NAMES) and previous.leading is None
        self.pending = PendingRecords(self._table, settings.leading, previous.leading, may_wait)
        self._empty_sums = partial(
            EpochSums,
            listening.uses,
            request.grouping,
            request.statistics,
            bins=settings.bins,
            chains=chain_bounds(listening.model),
            warn=notices.warn_of_layer,
            directions=settings.directions,
        )
        self.permutation_s = 0.0

    def _find_subjects(
        self, request: RecordingRequest, earlier: PermutationDesign | None
    ) -> GivenSubjects | SubjectRegister | None:
        """Whose labels are permuted, None where none are; the file says what is known of it by now."""
        if self._header.permutations is not None:
            return GivenSubjects(self._header.permutations)
        if request.permutations is None:
            self._header.permutations = earlier
            return None
        register = SubjectRegister(request.permutations, earlier)
        self._header.permutations = register.known_design
        return register

    @property
    def permutes(self) -> bool:
        """Whether labels are permuted at some epochs."""
        return self._subjects is not None

    def settle(self) -> None:
        """Compute the spectra that wait, so that the table holds every record."""
        self.pending.settle()

    def begin(self) -> None:
        """Nothing is summed up yet: the state after every record."""
        previous = self._previous
        empty = partial(self._empty_sums, earlier=previous.subspaces.of_layers)
        if previous.floor is not None:
            previous.floor.begin(self._table.recorded + len(self.pending), empty)
        permutations = None
        if self._subjects is not None and self._subjects.is_due(self._record.epoch):
            permutations = PermutationSums(self._subjects, self._listening.uses)
        self._record.begin(empty(constant=previous.constant), permutations)

    def end(self, label: int, curve: Curve, meeting: Meeting, batches: Batches) -> Curve:
        """Store the spectra of what was summed up, once all that may tell against it was looked at.

        Args:
            label: the number of the epoch or step.
            curve: losses and metrics, as far as this process tells them.
            meeting: with other processes; what all have summed up is stored.
            batches: that added to it.

        Returns:
            The means of what all processes tell.

        Raises:
            AutoSpecError: where nothing was summed up, or what was is not what the optimizer gets.
        """
        record, previous = self._record, self._previous
        is_first = not self._table.recorded
        curve = meeting.join(record, previous, self._listening.model, is_first, self._notices, curve)
        if not record.sums.batches:
            raise AutoSpecError(f"epoch {label} ended without a recorder.batch(...)")
        batches.compare_epoch(None if meeting.processes else curve[0])  # a mean over processes is neither reduction
        self._settle_floor()
        previous.weights.give(record.sums)
        if meeting.processes is None:
            self.pending.add(label, record.sums)
        else:
            # each process takes a part of the spectra, so that none can wait for later records
            measured = measured_together(record.sums, meeting.processes, label, self._leading, previous.leading)
            self._table.append({RECORDED_EPOCHS: label, **measured}, EPOCH)
        previous.replace(record.sums, record.epoch)
        return curve

    def _settle_floor(self) -> None:
        """Give the sums of the record that ends what is known of their rounding."""
        floor, epoch = self._previous.floor, self._record.epoch
        if floor is None:
            return
        floor.settle(self._record.sums, epoch)
        if floor.refusal:
            self._notices.warn(
                "",
                f"the noise floor of epoch {epoch} could not be measured in float64 ({floor.refusal}); "
                "measurements of earlier records stand in, or the formula where there are none, which knows the last "
                "product's rounding alone; ask for it with floor='formula'",
            )

    def permute(self, label: int) -> None:
        """Store what the permuted partitions of the record that ends give, where labels are permuted at it."""
        permutations = self._record.permutations
        if permutations is None or self._subjects is None or not self._record.sums.batches:
            return
        ratios = permutations.measured(label, self._record.sums.relative_floors())
        self._header.permutations = self._subjects.design()
        if ratios:
            self._table.append(ratios, PERMUTATION_EPOCH)
        self.permutation_s += permutations.cost_s
        late = getattr(self._subjects, "late", [])
        if late:
            self._notices.warn(
                "late subjects",
                f"subject {late[0]!r} came after labels were permuted (and {len(late) - 1} more); the tests are of the "
                "subjects of the first epoch",
            )

    def say_unrecorded(self, batches: int) -> None:
        """Say that the last batches are in no record: an error where there is none at all."""
        if not self._table.trained:
            raise AutoSpecError(
                f"nothing was recorded: {batches} batches, but no recorder.end_epoch() (or recorder.record(step)) "
                "after them, which stores the spectra"
            )
        warnings.warn(
            f"{batches} batches came after the last recorder.end_epoch() and are not in the file",
            AutoSpecWarning,
            stacklevel=3,
        )

    def keep_first(self, epoch: int) -> None:
        """Keep so many epochs, drop the rest, and begin the record after them."""
        self.settle()
        self._table.keep_first(epoch)
        self._previous.forget(epoch)
        self._record.epoch = epoch

    def state_dict(self, has_file: bool) -> dict[str, Any]:
        """What goes on from the last record; the arrays too where no file holds them."""
        self.settle()
        arrays = [] if has_file else list(self._table)
        state = {
            "epoch": self._record.epoch,
            "arrays": {array.field.path: torch.as_tensor(array.values.copy()) for array in arrays},
            "dimensions": {array.field.path: list(array.field.dimensions) for array in arrays},
            "of": self._named(),
        }
        engine = self._listening.engine
        way = {"way": engine.chosen} if isinstance(engine, FastEngine) else {}
        subjects = self._subjects.state_dict() if isinstance(self._subjects, SubjectRegister) else {}
        return {**state, **way, **self._previous.state_dict(), "subjects": subjects}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state; ``keep_first`` must follow, as the file may hold more."""
        check_state(state, self._named())
        self.settle()
        for path, values in state["arrays"].items():
            array = values.numpy()
            self._table.restore(Field(path, tuple(state["dimensions"][path]), array.dtype.name), array)
        self._previous.load_state_dict(state)
        engine = self._listening.engine
        if isinstance(engine, FastEngine):
            engine.choose(state.get("way"))  # another would differ in the last digits
        if isinstance(self._subjects, SubjectRegister) and state.get("subjects"):
            self._subjects.load_state_dict(state["subjects"])
            self._header.permutations = self._subjects.known_design

    def _named(self) -> dict[str, Any]:
        """The groups and the matrices' shapes, by which a state is told from that of another recorder."""
        shapes = {use.layer.name: list(use.layer.shape) for use in self._listening.uses}
        return {"groups": list(self._grouping.names), "layers": shapes}


def next_label(step: int | None, last: int) -> int:
    """The number of the epoch or step that ends; AutoSpecError for one that does not come after the last."""
    if step is not None and (isinstance(step, bool) or not isinstance(step, Integral)):
        raise AutoSpecError(f"step={step!r}: must be a whole number, above the one before")
    label = last + 1 if step is None else int(step)
    if label <= last:
        raise AutoSpecError(f"step={label} comes after {last}; steps must rise")
    return label
