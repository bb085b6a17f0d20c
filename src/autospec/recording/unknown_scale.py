"""What tells a GradScaler from other ratios between what backward left and what the optimizer gets."""

from __future__ import annotations

import math

from autospec.errors import AutoSpecError

SMALLEST_SCALE = 1024.0
"""A smaller ratio may be a gradient that was divided on purpose."""


def power_of_two(ratio: float) -> float:
    """The ratio, where it is a power of two that a scaler might multiply by; else 0."""
    is_power = ratio >= SMALLEST_SCALE and abs(math.log2(ratio) - round(math.log2(ratio))) < 1e-3
    return ratio if is_power else 0.0


def refuse_scale(found: float) -> None:
    """AutoSpecError where a scale was found."""
    if found:
        raise AutoSpecError(
            f"the optimizer gets 1/{found:.0f} of the gradients that backward left: a GradScaler multiplied "
            "the loss, and so what was recorded; give it to the recorder, SpectralRecorder(..., scaler=scaler)"
        )
