"""What one batch is to a recorder: the group of each of its samples, and their losses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autospec.capture.layers import Use
from autospec.errors import AutoSpecError
from autospec.spectra.groups import Grouping, SampleGroups
from autospec.store.schema import UNGROUPED


class Batch:
    """One batch inside ``recorder.batch``; ``cells`` is None at an epoch at which no spectra are taken.

    ``heard`` says whether a backward pass reached a watched layer.
    """

    def __init__(self, cells: SampleGroups | None, subject: Tensor | None = None) -> None:
        self.cells = cells
        self.subject = subject
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


def sample_groups(group: Tensor | npt.ArrayLike, grouping: Grouping, first: Use) -> SampleGroups:
    """The cells of a batch from the group label of each sample, (n,); AutoSpecError for labels that do not fit.

    ``first`` is any watched weight: labels come from its device, or from none (a list).
    """
    labels = _integers(group, grouping)
    device = first.layer.parameter.device
    if isinstance(group, Tensor) and labels.device != device:
        raise AutoSpecError(f"layer {first.name!r} is on {device}, the group labels on {labels.device}")
    labels = labels.to(device)
    low, high = int(labels.min()), int(labels.max())
    if low < UNGROUPED or high >= grouping.disjoint:
        raise AutoSpecError(
            f"group label {low if low < UNGROUPED else high} is outside the {grouping.disjoint} groups "
            f"({', '.join(_names(grouping))}); allowed are 0 to {grouping.disjoint - 1}, and -1 for none"
        )
    return SampleGroups.of(labels.long(), grouping.cells)


def _integers(group: Tensor | npt.ArrayLike, grouping: Grouping) -> Tensor:
    """Labels as a (n,) tensor of integers."""
    try:
        labels = group if isinstance(group, Tensor) else torch.as_tensor(np.asarray(group))
    except (TypeError, ValueError) as error:  # of text, or of lists of unequal length
        indices = ", ".join(f"{name} = {index}" for index, name in enumerate(_names(grouping)))
        raise AutoSpecError(
            f"group labels must be integers, an index into groups for each sample ({indices}; -1 for none)"
        ) from error
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool or not len(labels):
        raise AutoSpecError(
            f"group labels must be a (batch,) tensor of integers, not {tuple(labels.shape)} of {labels.dtype}"
        )
    return labels


def _names(grouping: Grouping) -> tuple[str, ...]:
    return grouping.names[1 : 1 + grouping.disjoint]
