"""From what all sites sent to what the recorder takes: every site's gradient of every layer, by group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autospec.recording.given_batch import GivenBatch, GivenLayer
from autospec.sites.messages import Contribution, Form
from autospec.sites.parts import Part
from autospec.spectra.factors import GradientFactors


def given_batch(contributions: Sequence[Contribution], form: Form) -> GivenBatch:
    """The batch as the recorder takes it; the groups are the cells of the first site, then those of the second, ...

    Args:
        contributions: of all sites, scaled to their share of the loss.
        form: of their messages.
    """
    samples = torch.cat([one.samples for one in contributions])
    return GivenBatch(
        {name: _layer([part for one in contributions for part in one.parts[name]], form, name) for name in form.shapes},
        torch.cat([samples.to(torch.int64), torch.zeros(1, dtype=torch.int64)]),
        torch.cat([samples / samples.sum(), torch.zeros(1, dtype=torch.float64)]),
    )


def _layer(parts: Sequence[Part | None], form: Form, name: str) -> GivenLayer:
    """One layer from the parts of all cells of all sites: as factors where all are exact ones."""
    there = [(cell, part) for cell, part in enumerate(parts) if part is not None]
    if there and all(part.leads for _, part in there):
        cell = torch.cat([torch.full((len(part.left),), cell) for cell, part in there])
        counts = torch.cat([_row_counts(part) for _, part in there])
        right, left = torch.cat([part.right for _, part in there]), torch.cat([part.left for _, part in there])
        return GivenLayer(GradientFactors(right, left, row_counts=counts), cell)
    gradients = torch.zeros((len(parts) + 1, *form.shapes[name]), dtype=torch.float64)
    bounds = torch.zeros(len(parts) + 1, dtype=torch.float64)
    for place, part in there:
        gradients[place], bounds[place] = part.gradient(), part.left_out
    return GivenLayer(gradients=gradients.to(form.dtype), eps=torch.finfo(form.dtype).eps, left_out=bounds)


def _row_counts(part: Part) -> Tensor:
    """How many rows each row of a triangle stands for: the first for all that the others do not."""
    counts = torch.ones(len(part.left), dtype=torch.int64)
    counts[0] += part.rows - len(counts)
    return counts
