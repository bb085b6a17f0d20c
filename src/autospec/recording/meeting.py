"""How the recorders of several processes find each other, and put together what each recorded of its samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from autospec.errors import AutoSpecError
from autospec.recording.averaged_check import AveragedCheck
from autospec.recording.joint_epoch import join
from autospec.recording.measured_floor import MeasuredFloor
from autospec.recording.notices import Notices
from autospec.recording.open_record import OpenRecord
from autospec.recording.processes import Processes, check_served, find_processes, is_one_of_several
from autospec.recording.recording_request import RecordingRequest

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

    def find(self, model: nn.Module) -> Processes | None:
        """The processes that train a model together, where this call is the one that finds them.

        Raises:
            AutoSpecError: for what cannot be recorded in several.
        """
        # the first batch looks again: torch.distributed may begin after the recorder was made
        if self._has_looked or not is_one_of_several():
            return None
        self._has_looked = True
        self.processes = find_processes(self._group, model)
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

    def mean(self, values: Sequence[float | None]) -> Sequence[float | None]:
        """The mean of each value over the processes that have it."""
        return values if self.processes is None else self.processes.mean(values)

    def join(
        self, record: OpenRecord, floor: MeasuredFloor | None, model: nn.Module, is_first: bool, notices: Notices
    ) -> None:
        """Replace the sums of this process's samples by those of all processes.

        Args:
            record: that ends.
            floor: measures its noise floor, by sums of its own.
            model: that trains.
            is_first: whether it is the first record.
            notices: says what the optimizer's gradient tells against it.
        """
        if self.processes is None or self.averaged is None:
            return
        warning = self.averaged.compare(is_first=is_first, model=model)
        if warning:
            notices.warn("averaged", warning)
        # the comparison above may have changed the share that one process's loss has
        join(record.sums, self.processes, self.averaged.share)
        if floor is not None:
            floor.join(self.processes, self.averaged.share)
        if record.permutations is not None:
            record.permutations.join(self.processes, self.averaged.share)
