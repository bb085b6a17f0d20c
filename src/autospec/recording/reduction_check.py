"""Whether the loss is reduced as the recorder was told: by the mean of the samples' losses, or by their sum."""

from __future__ import annotations

import math

from autospec.recording.batch import Batch
from autospec.recording.epoch_sums import EpochSums
from autospec.recording.notices import Notices


class ReductionCheck:
    """Compares the told reduction with what the samples' losses tell, where these are given.

    Args:
        reduction: "mean" or "sum".
        notices: says what does not fit.

    Attributes:
        is_mean: whether the loss is the mean.
    """

    def __init__(self, reduction: str, notices: Notices) -> None:
        self._reduction = reduction
        self._notices = notices
        self.is_mean = reduction == "mean"

    def compare_batch(self, batch: Batch, loss_scale: float) -> None:
        """Warn where the samples' losses entered the loss with other weights than the recorder was told of."""
        if batch.loss_shares is None or batch.weight is None:
            return
        shares = batch.loss_shares / loss_scale
        told = batch.entered_weights(self.is_mean)
        # a loss in half precision has derivatives that are off by less than 1e-3
        if bool(((shares - told).abs() > 1e-3 * told.max()).any()):
            worst = int((shares - told).abs().argmax())
            self._notices.warn(
                "reduction",
                f"the loss of sample {worst} enters the loss with weight {float(shares[worst]):.4g}, but "
                f"reduction={self._reduction!r} says {float(told[worst]):.4g}; scaled spectra use the latter. Choose "
                "the other reduction, or give recorder.batch(group, weight=...), or share=1/k where gradients of k "
                "batches are accumulated",
            )

    def compare_epoch(self, sums: EpochSums, loss: float | None) -> None:
        """Warn where the loss of an epoch of one batch is the other of the two reductions of its samples' losses."""
        mean, total = sums.mean_and_total_loss
        if loss is None or mean is None or total is None or math.isclose(mean, total, rel_tol=1e-3):
            return
        told, other = (mean, total) if self.is_mean else (total, mean)
        if math.isclose(loss, other, rel_tol=1e-3) and not math.isclose(loss, told, rel_tol=1e-3):
            self._notices.warn(
                "reduction",
                f"the loss is {loss:.4g}, but reduction={self._reduction!r} of the samples' losses is {told:.4g}; "
                "scaled spectra use the latter, so choose the other reduction",
            )
