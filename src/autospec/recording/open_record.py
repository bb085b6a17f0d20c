"""The record that is open: what has been summed up since the last one, and the batch that adds to it now."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from autospec.capture.layers import Layer, Use
from autospec.capture.row_owners import RowOwners
from autospec.recording.batch import Batch
from autospec.recording.epoch_sums import EpochSums
from autospec.recording.permutation_sums import PermutationSums
from autospec.recording.schedule import Schedule
from autospec.spectra.factors import GradientFactors


class OpenRecord:
    """The sums of a record, to which an engine adds during a batch.

    Args:
        schedule: at which epochs spectra are taken.
        scaler: the ``GradScaler`` that multiplies the loss, or None.

    Attributes:
        epoch: how many epochs (or steps) have ended.
        sums: of every watched layer, by group.
        permutations: person by person, where labels are permuted at this epoch; else None.
        batch: the one that is open, or None between batches.
    """

    def __init__(self, schedule: Schedule, scaler: torch.amp.GradScaler | None) -> None:
        self._schedule = schedule
        self._scaler = scaler
        self.epoch = 0
        self.sums: EpochSums
        self.permutations: PermutationSums | None = None
        self.batch: Batch | None = None

    def begin(self, sums: EpochSums, permutations: PermutationSums | None) -> None:
        """Begin with sums of nothing."""
        self.sums, self.permutations = sums, permutations

    @property
    def is_taken(self) -> bool:
        """Whether spectra are taken at the epoch that runs."""
        return self._schedule.takes(self.epoch)

    @property
    def has_scaler(self) -> bool:
        """Whether the recorder knows the ``GradScaler``, so that none has to be looked for."""
        return self._scaler is not None

    @property
    def loss_scale(self) -> float:
        """What the loss was multiplied by before its backward pass."""
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def add(self, use: Use, factors: GradientFactors, owners: RowOwners) -> None:
        """Add one weight's factors from one backward pass of the open batch; ``owners`` says whose each row is."""
        batch = self.batch
        assert batch is not None
        assert batch.groups is not None
        if self._scaler is not None:
            factors = factors.scaled(1 / self.loss_scale)
        batch.heard = True
        self.sums.add(use, factors, batch.groups, owners)
        if self.permutations is not None and batch.subject is not None:
            self.permutations.add(use, factors, batch.subject, owners)

    def add_matrices(self, layer: Layer, gradients: Tensor, eps: float) -> None:
        """Add one weight's gradient, split by group already: (groups, out, in), from numbers of a spacing ``eps``."""
        assert self.batch is not None
        self.batch.heard = True
        self.sums.add_matrices(layer, gradients if self._scaler is None else gradients / self.loss_scale, eps)

    def count(self, batch: Batch, is_mean: bool, evaluations: int) -> None:
        """Count the samples of a batch that ended well.

        Args:
            batch: the batch.
            is_mean: whether the loss is the mean over its samples.
            evaluations: how often a step's closure went through it; each time made a part of the gradient anew.
        """
        assert batch.groups is not None
        entered = batch.entered_weights(is_mean) * evaluations
        self.sums.count(batch.groups, entered, None if batch.loss_sums is None else batch.loss_sums / evaluations)
        if self.permutations is not None and batch.subject is not None:
            losses = None if batch.sample_losses is None else batch.sample_losses / evaluations
            self.permutations.count(batch.subject, entered, losses)

    def keep(self, layer: Layer) -> Callable[[], None]:
        """Copy what is summed up of a layer; calling the result puts it back."""
        kept = [self.sums.keep(layer), *([self.permutations.keep(layer)] if self.permutations else [])]

        def put_back() -> None:
            for restore in kept:
                restore()

        return put_back
