"""Whether the gradient that an optimizer gets is the average of what backward left in every process."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autospec.capture.pieces import divide_factor, sharded_modules, whole
from autospec.errors import AutoSpecError
from autospec.recording.joint_epoch import proportion
from autospec.recording.processes import Processes, is_averaged
from autospec.recording.unknown_scale import power_of_two, refuse_scale

SAME = 1e-2
"""How far two gradients may be from proportional: a wrapper may send them in half precision."""

APART = (
    "the gradient that the optimizer got in layer {name!r} is not the average of what backward left in the {size} "
    "processes (off by {off:.0%}), of which the recorded ones are parts; clipping by value does that, and a lossy "
    "communication hook. Where the processes train models apart from one another: process_group=False"
)

AMBIGUOUS = (
    "the optimizer's first gradient is neither the average nor the sum of what backward left in the processes, but "
    "proportional to both, as clipping makes it; taken for the average, which DistributedDataParallel would make"
)


class AveragedCheck:
    """Keeps the gradients of the first optimizer step, and compares them at the next record.

    Clipping by norm and a scaler change all by one factor, and are no difference.

    Attributes:
        is_scale_known: whether the recorder was told of a scaler.
        share: what one process's loss counts: 1 / processes, or 1 where gradients turn out to be added up.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._left: dict[str, Tensor] = {}
        self._got: dict[str, Tensor] = {}
        self._done = False
        self.is_scale_known = True
        self.share = 1.0 / processes.size

    def stepping(self, left: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
        """An optimizer takes gradients: what backward left in this process, and what there is now, by layer."""
        if not self._done and not self._got and left:
            self._left = {name: value.clone() for name, value in left.items() if name in got}
            self._got = {name: got[name].detach().to(torch.float64, copy=True) for name in self._left}

    def compare(self, is_first: bool, model: nn.Module) -> str | None:
        """Compare what was kept in all processes, once; what there is to warn of, or None.

        Args:
            is_first: whether nothing was recorded before, so that ``share`` may still change.
            model: that trains, inside ``DistributedDataParallel`` or not.

        Raises:
            AutoSpecError: where gradients are added up, but were recorded as an average before.
        """
        if self._done:
            return None
        is_sharded, divisor = bool(sharded_modules(model)), divide_factor(model) or self._processes.size
        if is_sharded:
            self.share = 1.0 / divisor
        names = sorted(set.intersection(*(set(names) for names in self._processes.gather(list(self._got)))))
        if not names:
            return None
        self._done = True
        lefts = self._processes.add_up([self._left[name] for name in names])
        got = {name: whole(self._got[name]) for name in names}
        found = {name: proportion(left, got[name]) for name, left in zip(names, lefts, strict=True)}
        self._left, self._got = {}, {}
        # of a gradient that is nearly nothing, rounding is all there is
        weights = {name: float(torch.linalg.vector_norm(left)) for name, left in zip(names, lefts, strict=True)}
        worst = max(names, key=lambda name: found[name][1] * weights[name])
        if found[worst][1] * weights[worst] > SAME * max(weights.values()):
            return APART.format(name=worst, size=self._processes.size, off=found[worst][1])
        ratio = found[max(names, key=lambda name: weights[name])][0]
        is_known = is_averaged(model) or is_sharded
        if is_known and not self.is_scale_known:
            refuse_scale(power_of_two(ratio / divisor))
        if abs(ratio / divisor - 1.0) <= SAME or is_known:
            return None
        if abs(ratio - 1.0) > SAME:
            return AMBIGUOUS
        if not is_first:
            raise AutoSpecError(
                "the processes' gradients are added up, not averaged, which was seen after the first record; let an "
                "optimizer step come before it"
            )
        self.share = 1.0
        return None
