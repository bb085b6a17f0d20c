"""A batch whose gradients were had elsewhere: those of several sites, from what they sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autospec.capture.row_owners import RowOwners
from autospec.errors import AutoSpecError
from autospec.recording.epoch_sums import EpochSums
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import SampleGroups


@dataclass(frozen=True)
class GivenLayer:
    """One layer's gradient by group, either as factors or as matrices.

    Attributes:
        factors: rows with the Gram matrices of the samples' rows, and their product.
        cell: (rows,) the index of each row's group; the number of groups for none.
        gradients: (groups + 1, out, in) where there are no factors; the last is of no group.
        eps: the spacing of the numbers that ``gradients`` were sent in.
        left_out: (groups + 1,) what each gradient may be off by, in the Frobenius norm.
    """

    factors: GradientFactors | None = None
    cell: Tensor | None = None
    gradients: Tensor | None = None
    eps: float = 0.0
    left_out: Tensor | None = None


@dataclass(frozen=True)
class GivenBatch:
    """The layers of a batch by name, and (groups + 1,) samples and loss weights."""

    layers: Mapping[str, GivenLayer]
    samples: Tensor
    weight: Tensor


def add_given(sums: EpochSums, batch: GivenBatch) -> None:
    """Add a batch to the sums of a record; AutoSpecError for a layer that is not recorded."""
    for name, given in batch.layers.items():
        use = sums.use(name)
        if use is None:
            raise AutoSpecError(f"layer {name!r} is none of the recorder's ({', '.join(sums.layers)})")
        if given.factors is not None and given.cell is not None:
            groups = SampleGroups.of(given.cell, len(batch.samples))
            sums.add(use, given.factors, groups, RowOwners())
        elif given.gradients is not None:
            sums.add_matrices(use.layer, given.gradients, given.eps)
        if given.left_out is not None:
            sums.layers[name].leave_out(given.left_out.cpu().to(torch.float64))
    sums.count_given(batch.samples, batch.weight)
