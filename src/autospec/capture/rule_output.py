"""What a layer rule returned, held against the layer that it explains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autospec.capture.layers import Use
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors


def parts_of(returned: Any, use: Use) -> tuple[GradientFactors, ...]:
    """The factors of one weight; AutoSpecError where they are missing, of another type, or do not fit its matrix."""
    if not isinstance(returned, Mapping):
        raise AutoSpecError(f"its rule returned a {type(returned).__name__}, not a dict of GradientFactors by weight")
    if use.local_name not in returned:
        there = ", ".join(repr(name) for name in returned) or "nothing"
        raise AutoSpecError(f"its rule explains {use.local_name!r}, but returned {there}")
    found = returned[use.local_name]
    parts = tuple(found) if isinstance(found, (list, tuple)) else (found,)
    for part in parts:
        if not isinstance(part, GradientFactors):
            raise AutoSpecError(
                f"its rule returned a {type(part).__name__} for {use.local_name!r}, not autospec.GradientFactors or "
                "a list"
            )
        if type(part) is GradientFactors:
            _check_shape(part, use)
    return parts


def _check_shape(part: GradientFactors, use: Use) -> None:
    rows, columns = use.layer.shape
    width = (part.adjoint if part.transposed else part.activation).shape[-1]
    if width != columns or part.first_row + part.height > rows:
        last = part.first_row + part.height
        raise AutoSpecError(
            f"the factors that its rule returned for {use.local_name!r} are of rows {part.first_row} to {last} and "
            f"{width} columns, but the weight's matrix is {rows} x {columns}; GradientFactors takes the activation "
            "first, then the adjoint"
        )
