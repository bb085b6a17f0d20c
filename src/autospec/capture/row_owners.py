"""Factors laid out so that each index of their first dimension is of one sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autospec.capture.layers import Use
from autospec.capture.trace_layout import NOBODY, NOT_REACHED, SHARED, RowTrace, adjoint_rows, by_sample, is_separable
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors


@dataclass(frozen=True)
class RowOwners:
    """Whose the first dimension of some factors is.

    Attributes:
        samples: (first,) the sample of each index, -1 for one without a gradient; None where they are the samples.
        shared: whether several samples share rows, so that no group has a part of its own.
    """

    samples: Tensor | None = None
    shared: bool = False


def by_trace(trace: RowTrace, use: Use, factors: GradientFactors, samples: int) -> tuple[GradientFactors, RowOwners]:
    if trace.how == SHARED:
        return factors, RowOwners(shared=True)
    if trace.how == NOT_REACHED:
        if bool((adjoint_rows(factors) != 0).any()):
            raise AutoSpecError(
                f"layer {use.name!r}: its adjoint does not come through what the model returned, so that its rows "
                "cannot be traced to samples; return from the model's forward what the loss is computed from"
            )
        nobody = torch.full((factors.samples,), NOBODY, device=factors.device)
        return factors, RowOwners(None if factors.samples == samples else nobody)
    trace = _of_this_batch(trace, factors, samples, use)
    laid_out, owners = by_sample(factors, trace)
    return laid_out, RowOwners(owners)


def _of_this_batch(trace: RowTrace, factors: GradientFactors, samples: int, use: Use) -> RowTrace:
    """The trace at the lengths of this batch; AutoSpecError where it says nothing of them."""
    first, positions = factors.samples, factors.positions if is_separable(factors) else 1
    if trace.layout is not None:
        layout = trace.layout.for_batch(samples, first, positions)
        if layout is not None:
            return RowTrace(trace.how, layout)
    elif trace.owners is not None and trace.owners.shape == (first, positions):
        if bool(((trace.owners == NOBODY)[..., None] & (adjoint_rows(factors) != 0)).any()):
            raise AutoSpecError(
                f"layer {use.name!r}: rows have a gradient that does not come through what the model returned; return "
                "from the model's forward what the loss is computed from"
            )
        return trace
    raise AutoSpecError(
        f"layer {use.name!r}: its rows ({first} x {positions}) are not those of the pass in which they were traced"
    )
