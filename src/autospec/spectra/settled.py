"""What is computed of many weights' gradients at once: in one call for all layers and records of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from autospec.spectra.groups import Grouping
from autospec.spectra.singular import gram, is_zero, of_gram

NUMBERS_AT_ONCE = 2**17
"""So many numbers are stacked in float64 at a time: 1 MiB, which a processor's cache holds."""

ALIGNED = 4
"""Sides of matrices are filled up with zeros to a multiple of it, so that each begins at a multiple of 64 bytes: the
last bit of a product and of an eigenvalue depends on that, and numbers may not depend on which records were waiting."""


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
    # rounding takes the cosine of parallel gradients past 1
    return (inner / scale).where(scale > 0, torch.nan).clamp(-1.0, 1.0)


def cancellation_of(whole: Tensor, norms: Tensor) -> Tensor:
    """(...) squared norms of the whole, (..., cells) norms of its parts → ``‖∇_all‖ / Σ_c ‖∇_c‖``."""
    parts = norms.sum(-1)
    return torch.where(parts > 0, whole.clamp_min(0.0).sqrt() / parts, torch.nan)


def settle_spectra(sums: Iterable[Unsettled]) -> None:
    """Compute the spectra of several weights, or of one at several records, together.

    Those whose gradients hold NaN or infinity are left to themselves.
    """
    by_device: dict[torch.device, list[tuple[Unsettled, Tensor]]] = {}
    # a stack lies on one device: of a model that is split over several each has a stack of its own
    for one in sums:
        matrices = one.unsettled
        if matrices is not None:
            by_device.setdefault(matrices.device, []).append((one, matrices))
    for pairs in by_device.values():
        _settle(pairs)


def _settle(pairs: Sequence[tuple[Unsettled, Tensor]]) -> None:
    """Settle weights on one device, their small problems in as few calls as there are sizes."""
    grouping = pairs[0][0].grouping
    by_shape: dict[torch.Size, list[Tensor]] = {}
    weights: dict[torch.Size, list[Unsettled]] = {}
    for one, matrices in pairs:
        by_shape.setdefault(matrices.shape, []).append(matrices)
        weights.setdefault(matrices.shape, []).append(one)
    found = [_products(grouping, part) for stack in by_shape.values() for part in _parts(stack)]
    between = torch.cat([products for products, _ in found])
    cosines, cancellations, finite = _angles(grouping, between)
    spectra = _in_batches([one for _, stack in found for one in stack.unbind()])
    columns = zip(spectra, cosines, cancellations, finite, strict=True)
    alike = ((one, min(shape[1:])) for shape, ones in weights.items() for one in ones)
    for (one, width), (of_one, *angles, is_finite) in zip(alike, columns, strict=True):
        # 0 · NaN is NaN: in products over all groups one bad group spoils the others, which alone keep their values
        if is_finite:
            one.settle(Settled(of_one[:, :width], *angles))


def _parts(stack: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """Matrices of one shape in parts that a cache holds."""
    at_once = max(1, NUMBERS_AT_ONCE // stack[0].numel())
    return (stack[start : start + at_once] for start in range(0, len(stack), at_once))


def _products(grouping: Grouping, matrices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Of several (cells, out, in): inner products (weights, cells, cells), and Gram matrices of what is reported."""
    reported, nobodys = _reported(grouping, matrices)
    # the cells are the disjoint groups and, last, the samples of no group
    cells = reported[:, 1 : grouping.cells].flatten(2)
    if nobodys is not None:
        cells = torch.cat([cells, nobodys.flatten(2)], dim=1)
    between = cells.new_zeros((len(cells), grouping.cells, grouping.cells))
    between[:, : cells.shape[1], : cells.shape[1]] = cells @ cells.mT
    return between, gram(reported)


def _angles(grouping: Grouping, between: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor], list[bool]]:
    """(weights, cells, cells) inner products → cosines, cancellation, and whether they are finite, of each weight."""
    # margins and the whole are sums of cells, so their inner products are sums of those between cells
    members = grouping.members.to(between)
    # one by one: products of all at once are of another shape for each number of weights
    inner = torch.stack([members @ one.clone() @ members.mT for one in between])
    norms = between.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt()
    finite: list[bool] = between.sum((1, 2)).isfinite().tolist()
    return cosines_of(inner).cpu().unbind(), cancellation_of(inner[:, 0, 0], norms).cpu().unbind(), finite


def _in_batches(grams: Sequence[Tensor]) -> list[Tensor]:
    """The spectra (reported, K) of Gram matrices (reported, K, K), small ones of one size solved in one call."""
    spectra: dict[int, Tensor] = {}
    for size in {one.shape[-1] for one in grams}:
        places = [place for place, one in enumerate(grams) if one.shape[-1] == size]
        alike = [grams[place] for place in places]
        # a processor solves one after the other anyway, and then copies as few at a time as it can hold at hand
        parts = _parts(alike) if alike[0].device.type == "cpu" else [alike]
        found = [one for part in parts for one in of_gram(_stacked(part)).cpu().unbind()]
        spectra |= zip(places, found, strict=True)
    return [spectra[place] for place in range(len(grams))]


def _stacked(grams: Sequence[Tensor]) -> Tensor:
    """(n, reported, K, K); of one without a copy."""
    return grams[0][None] if len(grams) == 1 else torch.stack(list(grams))


def _reported(grouping: Grouping, matrices: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Several (cells, out, in) → (weights, reported, out, in) and, unless all zero, (weights, 1, out, in) of no group.

    Both are in float64, ``out`` and ``in`` filled up (``ALIGNED``).
    """
    cells, *shape = matrices[0].shape
    more = [-length % ALIGNED for length in shape]
    room = (len(matrices), grouping.reported, *(length + by for length, by in zip(shape, more, strict=True)))
    reported = (matrices[0].new_zeros if any(more) else matrices[0].new_empty)(room, dtype=torch.float64)
    for place, one in enumerate(matrices):
        reported[place, 1:cells, : shape[0], : shape[1]].copy_(one[:-1])
    disjoint = reported[:, 1:cells]
    torch.sum(disjoint, dim=1, out=reported[:, 0])
    for place in range(cells, grouping.reported):
        torch.sum(disjoint[:, grouping.members[place, :-1] > 0], dim=1, out=reported[:, place])
    # samples of no group are rare: without them the products of a whole cell are saved
    nobodys = torch.stack([one[cells - 1 :] for one in matrices])
    if is_zero(nobodys):
        return reported, None
    nobodys = torch.nn.functional.pad(nobodys.double(), (0, more[1], 0, more[0]))
    reported[:, 0] += nobodys[:, 0]
    return reported, nobodys
