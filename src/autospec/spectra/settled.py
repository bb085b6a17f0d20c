"""What is computed of many weights' gradients at once: in one call for all layers and records of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from autospec.spectra.groups import Grouping
from autospec.spectra.singular import gram, is_zero, of_gram

NUMBERS_AT_ONCE = 2**17
"""So many numbers are stacked in float64 at a time: 1 MiB, which a processor's cache holds."""


@dataclass(frozen=True)
class Settled:
    """Of one weight's gradient: spectra (reported, K), cosines (reported, reported), cancellation (), in float64."""

    spectra: Tensor
    cosines: Tensor
    cancellation: Tensor


class Unsettled(Protocol):
    """A weight's gradient sum, from which spectra may still have to be computed."""

    grouping: Grouping

    @property
    def unsettled(self) -> Tensor | None:
        """(cells, out, in): the matrices that spectra are still to be had from, or None."""

    def settle(self, settled: Settled) -> None:
        """Take what was computed."""


def cosines_of(inner: Tensor) -> Tensor:
    """(..., reported, reported) inner products → cosines, NaN for a zero gradient."""
    norms = inner.diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt()
    scale = norms[..., :, None] * norms[..., None, :]
    return (inner / scale).where(scale > 0, torch.nan).clamp(-1.0, 1.0)


def cancellation_of(whole: Tensor, norms: Tensor) -> Tensor:
    """(...) squared norms of the whole, (..., cells) norms of its parts → ``‖∇_all‖ / Σ_c ‖∇_c‖``."""
    parts = norms.sum(-1)
    return torch.where(parts > 0, whole.clamp_min(0.0).sqrt() / parts, torch.nan)


def settle_spectra(sums: Iterable[Unsettled]) -> None:
    """Compute the spectra of several weights, or of one at several records, together.

    Those whose gradients hold NaN or infinity are left to themselves.
    """
    waiting = [(one, matrices) for one in sums if (matrices := one.unsettled) is not None]
    kinds = {(matrices.device, matrices.shape): place for place, (_, matrices) in enumerate(waiting)}
    waiting.sort(key=lambda pair: kinds[(pair[1].device, pair[1].shape)])
    for _, alike in groupby(waiting, key=lambda pair: (pair[1].device, pair[1].shape)):
        pairs = list(alike)
        at_once = max(1, NUMBERS_AT_ONCE // pairs[0][1].numel())
        for start in range(0, len(pairs), at_once):
            _settle(pairs[start : start + at_once])


def _settle(pairs: Sequence[tuple[Unsettled, Tensor]]) -> None:
    """Settle weights of one shape, stacked."""
    grouping = pairs[0][0].grouping
    reported, nobodys = _reported(grouping, [matrices for _, matrices in pairs])
    # the cells are the disjoint groups and, last, the samples of no group
    cells = torch.cat([reported[:, 1 : grouping.cells], nobodys], dim=1).flatten(2)
    between_cells = cells @ cells.mT
    finite = between_cells.sum((1, 2)).isfinite()
    if not bool(finite.all()):
        kept = [pair for pair, is_finite in zip(pairs, finite.tolist(), strict=True) if is_finite]
        if kept:
            _settle(kept)
        return
    members = grouping.members[:, : cells.shape[1]].to(cells)
    inner = members @ between_cells @ members.mT
    norms = between_cells.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt()
    columns = of_gram(gram(reported)), cosines_of(inner), cancellation_of(inner[:, 0, 0], norms)
    for (one, _), *of_one in zip(pairs, *(column.cpu().unbind() for column in columns), strict=True):
        one.settle(Settled(*of_one))


def _reported(grouping: Grouping, matrices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Several (cells, out, in) → (weights, reported, out, in), and (weights, 0 or 1, out, in) of no group; float64."""
    cells, *shape = matrices[0].shape
    reported = matrices[0].new_empty((len(matrices), grouping.reported, *shape), dtype=torch.float64)
    nobodys = torch.stack([one[cells - 1 :] for one in matrices])
    nobodys = reported[:, :0] if is_zero(nobodys) else nobodys.double()
    for place, one in enumerate(matrices):
        reported[place, 1:cells].copy_(one[:-1])
    torch.sum(torch.cat([reported[:, 1:cells], nobodys], 1), dim=1, out=reported[:, 0])
    for place in range(cells, grouping.reported):
        torch.sum(reported[:, 1:cells][:, grouping.members[place, :-1] > 0], dim=1, out=reported[:, place])
    return reported, nobodys
