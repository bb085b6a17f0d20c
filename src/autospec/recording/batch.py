"""What one batch is to a recorder: the group of each of its samples, and their losses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autospec.capture.layers import Use
from autospec.errors import AutoSpecError
from autospec.spectra.groups import Grouping, SampleGroups
from autospec.store.schema import UNGROUPED


@dataclass(frozen=True)
class BatchLabels:
    """What a training loop says of a batch before it runs; the arguments of ``SpectralRecorder.batch``, unchecked."""

    group: Tensor | npt.ArrayLike
    samples: Tensor | None
    subject: Tensor | Iterable[Any] | None
    weight: Tensor | npt.ArrayLike | None
    share: float


class Batch:
    """One batch inside ``recorder.batch``.

    Attributes:
        groups: the samples of each group; None at an epoch at which no spectra are taken.
        weight: (n,) float64, what each sample's loss is multiplied by; all ones where none was given.
        share: what the batch's loss is multiplied by as a whole.
        subject: (n,) whose each sample is, where partitions of people are recorded.
        heard: whether a backward pass reached a watched layer.
        loss_shares: (n,) the derivative of the loss by each sample's, where ``losses`` came before backward.
    """

    def __init__(
        self,
        groups: SampleGroups | None,
        subject: Tensor | None = None,
        weight: Tensor | None = None,
        share: float = 1.0,
    ) -> None:
        self.groups = groups
        self.weight = weight
        self.subject = subject
        self.share = checked_share(share)
        self.heard = False
        self.sample_losses: Tensor | None = None
        self.loss_sums: Tensor | None = None
        self.loss_shares: Tensor | None = None

    def entered_weights(self, mean_loss: bool) -> Tensor:
        """(n,) float64: what each sample's loss is multiplied by in the loss that backward is called on."""
        assert self.weight is not None
        return self.weight / (self.weight.sum() if mean_loss else 1) * self.share

    def losses(self, losses: Tensor) -> None:
        """Give the loss of each sample, from which the groups' mean losses are stored.

        Given before ``backward``, they also tell whether the loss is their mean or their sum.

        Args:
            losses: (n,) the loss of each sample, unweighted.

        Raises:
            AutoSpecError: where there is not one for each sample.
        """
        if self.groups is None:
            return
        if losses.shape != self.groups.of_sample.shape:
            raise AutoSpecError(
                f"losses must be one per sample, shape {tuple(self.groups.of_sample.shape)}, not {tuple(losses.shape)}"
            )
        if losses.requires_grad:
            losses.register_hook(self._take_shares)
        sums = self.groups.sums(losses.detach())
        self.loss_sums = sums if self.loss_sums is None else self.loss_sums + sums
        self.sample_losses = losses.detach() if self.sample_losses is None else self.sample_losses + losses.detach()

    def _take_shares(self, shares: Tensor) -> None:
        self.loss_shares = shares.detach().double()


def checked_share(share: float) -> float:
    """The share as a float; AutoSpecError for what is no positive number."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < math.inf:
        raise AutoSpecError(f"share={share!r}: must be a positive number, 1/k where k batches are accumulated")
    return float(share)


def loss_weights(weight: Tensor | npt.ArrayLike | None, groups: SampleGroups) -> Tensor:
    """(n,) float64: what each sample's loss is multiplied by, ones where nothing is given.

    Raises:
        AutoSpecError: for weights that are not one per sample, are negative, or are all zero.
    """
    if weight is None:
        return torch.ones_like(groups.of_sample, dtype=torch.float64)
    try:
        weights = torch.as_tensor(weight).detach().to(groups.of_sample.device, torch.float64)
    except (TypeError, ValueError) as error:
        raise AutoSpecError("weight must be numbers, what each sample's loss is multiplied by") from error
    if weights.shape != groups.of_sample.shape:
        raise AutoSpecError(
            f"weight must be one per sample, shape {tuple(groups.of_sample.shape)}, not {tuple(weights.shape)}"
        )
    if not bool(weights.isfinite().all()) or bool((weights < 0).any()) or not bool(weights.any()):
        raise AutoSpecError("weight must be finite, not negative, and not zero for every sample")
    return weights


class LastGroups:
    """The groups of batches: those of the last one again, for as long as equal labels come."""

    def __init__(self) -> None:
        self._labels: Tensor | None = None
        self._groups: SampleGroups | None = None

    def of(self, group: Tensor | npt.ArrayLike, grouping: Grouping, first: Use) -> SampleGroups:
        """As ``sample_groups``."""
        known = self._labels
        if self._groups is not None and known is not None and isinstance(group, Tensor) and _are_equal(group, known):
            return self._groups
        self._groups = sample_groups(group, grouping, first)
        self._labels = group.clone() if isinstance(group, Tensor) else None
        return self._groups


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


def sample_groups(group: Tensor | npt.ArrayLike, grouping: Grouping, first: Use) -> SampleGroups:
    """The groups of a batch from the group label of each sample, (n,); AutoSpecError for labels that do not fit.

    ``first`` is any watched weight: labels come from its device, or from none (a list).
    """
    given = labels = _integers(group, grouping)
    device = first.layer.parameter.device
    if isinstance(group, Tensor) and labels.device != device:
        raise AutoSpecError(f"layer {first.name!r} is on {device}, the group labels on {labels.device}")
    labels = labels.to(device, torch.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < UNGROUPED or high >= grouping.disjoint:
        of_none = {torch.uint8: 255, torch.uint16: 65535, torch.uint32: 2**32 - 1}.get(given.dtype)
        if high == of_none:
            raise AutoSpecError(
                f"group label {high} is -1 in {given.dtype}, which knows no negative numbers; give signed integers"
            )
        raise AutoSpecError(
            f"group label {low if low < UNGROUPED else high} is outside the {grouping.disjoint} groups "
            f"({', '.join(_names(grouping))}); allowed are 0 to {grouping.disjoint - 1}, and -1 for none"
        )
    return SampleGroups.of(labels, grouping.cells)


def _integers(group: Tensor | npt.ArrayLike, grouping: Grouping) -> Tensor:
    """Labels as a (n,) tensor of integers."""
    try:
        labels = group if isinstance(group, Tensor) else torch.as_tensor(np.asarray(group))
    except (TypeError, ValueError) as error:  # of text, or of lists of unequal length
        indices = ", ".join(f"{name} = {index}" for index, name in enumerate(_names(grouping)))
        raise AutoSpecError(
            f"group labels must be integers, an index into groups for each sample ({indices}; -1 for none)"
        ) from error
    if not labels.numel():
        raise AutoSpecError("group labels are of no sample: leave out a batch without samples (drop_last, or a check)")
    is_whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype in (torch.bool, torch.uint64))
    if labels.dim() != 1 or not is_whole:
        raise AutoSpecError(
            f"group labels must be a (batch,) tensor of integers, not {tuple(labels.shape)} of {labels.dtype}"
            + _mended(labels, is_whole)
        )
    return labels


def _mended(labels: Tensor, is_whole: bool) -> str:
    """How labels of another kind become integers, for the end of a message."""
    if labels.dim() == 2 and labels.shape[1] > 1:
        return "; of one-hot rows, labels.argmax(1) are integers" if bool((labels != 0).sum(1).eq(1).all()) else ""
    if labels.dim() == 2:
        return "; labels.flatten() has one per sample"
    return "" if is_whole else "; labels.long() if each is an index into groups"


def _names(grouping: Grouping) -> tuple[str, ...]:
    return grouping.names[1 : 1 + grouping.disjoint]
