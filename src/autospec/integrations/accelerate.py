"""A recorder for loops with Accelerate, which divides the loss and scales it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from torch import Tensor, nn

from autospec.errors import AutoSpecError
from autospec.integrations.libraries import require_library
from autospec.recording.batch import Batch
from autospec.recording.recorder import SpectralRecorder

require_library("accelerate", "accelerate")

if TYPE_CHECKING:
    from accelerate import Accelerator


SERVED = ("NO", "MULTI_CPU", "MULTI_GPU")
"""The kinds of training that are recorded: one process, or several with the whole model in each."""


class AcceleratedRecorder(SpectralRecorder):
    """A ``SpectralRecorder`` that knows what ``accelerator.backward`` does to the loss.

    Args:
        accelerator: the accelerator, after ``prepare``.
        model: what ``prepare`` returned.
        path: the spectra file.
        options: the other arguments of ``SpectralRecorder``.
    """

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, path: str | Path | None = None, **options: Any
    ) -> None:
        kind = accelerator.distributed_type.value
        if kind not in SERVED:
            raise AutoSpecError(
                f"distributed_type={kind}: is not recorded; allowed are one process and DistributedDataParallel "
                f"({', '.join(SERVED)})"
            )
        self._accelerator = accelerator
        super().__init__(accelerator.unwrap_model(model), path, scaler=accelerator.scaler, **options)

    def batch(
        self,
        group: Tensor | npt.ArrayLike,
        samples: Tensor | None = None,
        *,
        subject: Tensor | Iterable[Any] | None = None,
        weight: Tensor | npt.ArrayLike | None = None,
        share: float | None = None,
    ) -> contextlib.AbstractContextManager[Batch]:
        """As ``SpectralRecorder.batch``; ``share`` is what ``accelerator.backward`` multiplies the loss by."""
        share = 1 / self._accelerator.gradient_accumulation_steps if share is None else share
        return super().batch(group, samples, subject=subject, weight=weight, share=share)
