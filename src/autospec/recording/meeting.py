"""How the recorders of several processes find each other, and put together what each recorded of its samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from autospec.capture.hooks import HookListener
from autospec.errors import AutoSpecError
from autospec.recording.averaged_check import AveragedCheck
from autospec.recording.joint_curves import Curve, JointCurves
from autospec.recording.joint_epoch import join
from autospec.recording.notices import Notices
from autospec.recording.open_record import OpenRecord
from autospec.recording.previous_records import PreviousRecords
from autospec.recording.processes import Processes, check_served, find_processes, is_one_of_several
from autospec.recording.recording_request import RecordingRequest
from autospec.recording.sharded import prove_together

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Meeting:
    """The processes that train a model together, once they are found.

    Args:
        request: what is recorded; it must be the same in all.
        process_group: that of the recorder.

    Attributes:
        processes: those found; None while this one is alone.
        averaged: compares the gradients that an optimizer gets with those of all processes; None as well.
    """

    def __init__(self, request: RecordingRequest, process_group: ProcessGroup | bool | None) -> None:
        self._request = request
        self._group = process_group
        self._has_looked = False
        self.processes: Processes | None = None
        self.averaged: AveragedCheck | None = None
        self._curves = JointCurves()

    def find(self, model: nn.Module, hooks: HookListener | None) -> Processes | None:
        """The processes that train a model together, where this call is the one that finds them.

        Args:
            model: in its wrapper or not.
            hooks: listen to it; weights in pieces are traced in all processes at once.

        Raises:
            AutoSpecError: for what cannot be recorded in several.
        """
        # the first batch looks again: torch.distributed may begin after the recorder was made
        if self._has_looked or not is_one_of_several():
            return None
        self._has_looked = True
        self.processes = find_processes(self._group, model)
        if hooks is not None:
            prove_together(hooks.tracer, model, self.processes)
        if self.processes is None:
            return None
        check_served(self._request.settings.engine, self._request.statistics)
        if self._request.permutations is not None:
            raise AutoSpecError(
                "permutations=... in several processes: each meets its own subjects alone; design them beforehand "
                "(permutation_design=...), or record permutations in one process"
            )
        self.averaged = AveragedCheck(self.processes)
        return self.processes

    def agree(self, layers: Sequence[str], epoch: int) -> None:
        """AutoSpecError where another process records something else, or stands at another epoch."""
        if self.processes is None:
            return
        request = self._request
        self.processes.agree(
            {
                "groups": request.grouping.names,
                "layers": list(layers),
                "statistics": [statistic.name for statistic in request.statistics],
                "every": request.schedule.every,
                "epochs": request.schedule.epochs,
                "epoch": epoch,
            }
        )

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes, and tells of records."""
        return self.processes is None or self.processes.writes

    def between(self, curve: Curve) -> Curve:
        """The means of what processes tell of an epoch at which no spectra are taken."""
        return curve if self.processes is None else self._curves.between(curve, self.processes)

    def join(
        self,
        record: OpenRecord,
        previous: PreviousRecords,
        model: nn.Module,
        is_first: bool,
        notices: Notices,
        curve: Curve,
    ) -> Curve:
        """Replace the sums of this process's samples by those of all processes.

        Args:
            record: that ends.
            previous: what it takes over from earlier ones; the floor is measured by sums of its own.
            model: that trains.
            is_first: whether it is the first record.
            notices: says what the optimizer's gradient tells against it.
            curve: what this process tells of the epoch.

        Returns:
            The means of what all tell of it.
        """
        if self.processes is None or self.averaged is None:
            return curve
        floor = previous.floor
        warning = self.averaged.compare(is_first=is_first, model=model)
        if warning:
            notices.warn("averaged", warning)
        # the comparison above may have changed the share that one process's loss has
        share, told = self.averaged.share, (curve, "" if floor is None else floor.refusal)
        is_parted = record.permutations is None and not previous.needs_all_sums
        of_processes = join(record.sums, self.processes, share, told, is_parted)
        if floor is not None:
            floor.join(self.processes, share, [refusal for _, refusal in of_processes])
        if record.permutations is not None:
            record.permutations.join(self.processes, share)
        return self._curves.at_record([curve for curve, _ in of_processes])
