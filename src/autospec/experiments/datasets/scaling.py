"""Scaling of inputs, fitted on training subjects only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError
from autospec.experiments.datasets.dataset import Float32s, Mask

SCALINGS = ("none", "feature", "person", "global")
"""As they are; z-score of each feature; of each channel of each subject over time; of all values together."""

GREY_MAXIMUM = 255


@dataclass(frozen=True)
class Scaled:
    """Scaled inputs (n, ...) and the numbers that they were scaled with."""

    inputs: Float32s
    fitted: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)


def grey_values(images: npt.NDArray[np.uint8]) -> Float32s:
    """Images of bytes as grey values 0 to 1.

    Args:
        images: Any shape.

    Returns:
        As many values from 0 to 1.
    """
    return np.asarray(images / GREY_MAXIMUM, dtype=np.float32)


def check_scaling(kind: str) -> None:
    """Refuse a scaling that is not one of SCALINGS.

    Args:
        kind: ``dataset.scaling``.

    Raises:
        AutoSpecError: Names the allowed ones.
    """
    if kind not in SCALINGS:
        raise AutoSpecError(f"dataset.scaling={kind}: unknown; allowed here are {', '.join(SCALINGS)}")


def scale(inputs: npt.NDArray[np.floating], kind: str, training: Mask) -> Scaled:
    """Take a mean off the inputs and divide by a standard deviation, as ``kind`` says.

    A subject's own z-score needs no fit; the others take mean and SD of the training samples.

    Args:
        inputs: (n, ...).
        kind: One of SCALINGS.
        training: (n,) Whom the fit is made on.

    Returns:
        Scaled inputs (n, ...), and the fit by name.

    Raises:
        AutoSpecError: Values are constant.
    """
    check_scaling(kind)
    if kind == "none":
        return Scaled(np.asarray(inputs, dtype=np.float32))
    if kind == "person":
        return Scaled(_z_score(inputs, inputs.mean(1, keepdims=True), inputs.std(1, keepdims=True)))
    fit = inputs[training]
    axes = tuple(range(inputs.ndim)) if kind == "global" else (0,)
    mean = fit.mean(axes, dtype=np.float64)
    sd = fit.std(axes, dtype=np.float64)
    return Scaled(_z_score(inputs, mean, sd), {"mean": np.asarray(mean), "sd": np.asarray(sd)})


def _z_score(inputs: npt.NDArray, mean: npt.NDArray, sd: npt.NDArray) -> Float32s:
    constant = np.argwhere(sd == 0)
    if len(constant):
        where = " ".join(str(index) for index in constant[0])
        raise AutoSpecError(f"dataset.scaling: the values at index {where or 'all'} are constant; leave them out")
    result: Float32s = ((inputs - mean) / sd).astype(np.float32)
    return result
