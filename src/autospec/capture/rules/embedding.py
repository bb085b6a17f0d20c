"""Embeddings: the activation is one-hot, so its products are sums of adjoints and its spectrum is a count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autospec.capture.rules.linear import rows_of
from autospec.capture.rules.registry import LayerCall, register_rule
from autospec.spectra.factors import GradientFactors, at_least_float32, chosen, squared_norm
from autospec.spectra.singular import on_capable_device


@register_rule(nn.Embedding)
def embedding(layer: nn.Embedding, call: LayerCall) -> dict[str, GradientFactors]:
    """``y = A W`` with one-hot rows ``A``: ``∇W = Aᵀ Δ``; positions with ``padding_idx`` are no rows.

    ``max_norm`` rescales the table before the look-up and outside the gradient, which it leaves as it is.
    """
    factors = embedding_factors(
        call.activation,
        call.adjoint,
        layer.num_embeddings,
        padding_index=layer.padding_idx,
        by_frequency=layer.scale_grad_by_freq,
    )
    return {"weight": factors}


def embedding_factors(
    indices: Tensor, adjoint: Tensor, table_length: int, *, padding_index: int | None, by_frequency: bool
) -> EmbeddingFactors:
    """The factors of a look-up.

    Args:
        indices: (n, ...), what was looked up.
        adjoint: (n, ..., width), the derivative by what came out.
        table_length: how many rows the table has.
        padding_index: the index that is no row, counted from the end where it is negative.
        by_frequency: whether an index's gradient is divided by how often the batch holds it. The count is of the
            whole batch: a group's part is its part of that quotient.
    """
    if not indices.dim():  # one look-up that all samples share
        indices, adjoint = indices[None], adjoint[None]
    adjoint = rows_of(adjoint)
    positions = indices.reshape(len(adjoint), -1)
    present = torch.ones_like(positions, dtype=torch.bool)
    if padding_index is not None:
        present = positions != padding_index % table_length
    if by_frequency:
        adjoint = _by_frequency(positions, adjoint, table_length)
    return EmbeddingFactors(positions, adjoint, present, table_length)


def bag_factors(
    indices: Tensor, adjoint: Tensor, table_length: int, options: Mapping[str, Any]
) -> EmbeddingFactors | None:
    """The factors of sums or means over bags of look-ups: every index of a bag is a row.

    Args:
        indices: (n, longest), or those of all bags in one row, with ``offsets``.
        adjoint: (n, width), the derivative by what came out.
        table_length: how many rows the table has.
        options: the other arguments of ``torch.nn.functional.embedding_bag`` by name, None for those left out.

    Returns:
        The factors, or None for ``mode="max"``, where rows belong to single columns, and for counts of the whole batch,
        which torch's own backward pass takes of other indices.
    """
    mode = options["mode"] or "mean"
    if mode == "max" or options["scale_grad_by_freq"]:
        return None
    padded, present, weights = _bags(indices, options, len(adjoint))
    if options["padding_idx"] is not None:
        present = present & (padded != options["padding_idx"] % table_length)
    if mode == "mean":
        weights = weights / present.sum(1, keepdim=True).clamp_min(1)
    rows = adjoint[:, None] * weights[..., None].to(adjoint.dtype)
    return EmbeddingFactors(padded, rows, present, table_length)


def _bags(indices: Tensor, options: Mapping[str, Any], bags: int) -> tuple[Tensor, Tensor, Tensor]:
    """(n, longest) each: the indices of every bag, which of them there are, and their weights."""
    weights = options["per_sample_weights"]
    weights = torch.ones_like(indices, dtype=torch.float64) if weights is None else weights.detach()
    if indices.dim() == 2:
        return indices, torch.ones_like(indices, dtype=torch.bool), weights
    starts = options["offsets"][:bags].long()
    lengths = torch.diff(starts, append=starts.new_tensor([len(indices)]))
    if options["include_last_offset"]:
        lengths = torch.diff(options["offsets"].long())
    present = torch.arange(int(lengths.max()), device=indices.device) < lengths[:, None]
    place = (starts[:, None] + present.cumsum(1) - 1).clamp(0, len(indices) - 1)
    return indices[place] * present, present, weights[place] * present


def _by_frequency(positions: Tensor, adjoint: Tensor, table_length: int) -> Tensor:
    """Adjoints divided by how often their index occurs in the whole batch."""
    counts = torch.bincount(positions.flatten(), minlength=table_length)
    return adjoint / counts[positions][..., None]


class EmbeddingFactors(GradientFactors):
    """The factors of an embedding: ``∇W = Aᵀ Δ`` with the one-hot ``A`` kept as indices.

    Shapes: ``indices`` and ``present`` (n, positions), ``adjoint`` (n, positions, width); where ``present`` is
    False there is no row.
    """

    def __init__(self, indices: Tensor, adjoint: Tensor, present: Tensor, table_length: int) -> None:
        adjoint = adjoint.detach().reshape(*indices.shape, -1)
        self.stored = (indices, adjoint * present[..., None])
        self.present = present
        self.table_length = table_length
        self.first_row = 0
        self.transposed = True
        self._row_counts = present.sum(1)

    @property
    def activation(self) -> Tensor:
        one_hot = functional.one_hot(self.stored[0], self.table_length) * self.present[..., None]
        return one_hot.to(self.stored[1]).unsqueeze(0)

    @property
    def adjoint(self) -> Tensor:
        return self.stored[1].unsqueeze(0)

    @property
    def blocks(self) -> int:
        return 1

    @property
    def samples(self) -> int:
        return self.stored[0].shape[0]

    @property
    def positions(self) -> int:
        return self.stored[0].shape[1]

    @property
    def height(self) -> int:
        return self.table_length

    def activation_rows(self, samples: Tensor) -> Tensor:
        """(table length, 1, 1): one-hot rows have the singular values of a diagonal of roots of their counts."""
        indices = chosen(self.stored[0], samples)[chosen(self.present, samples)]
        counts = torch.bincount(indices, minlength=self.table_length)
        return on_capable_device(counts).double().sqrt()[:, None, None]

    def product(self, samples: Tensor) -> Tensor:
        """The samples' part of the gradient (paper, eq. 5): each index's adjoints, summed."""
        indices, adjoint = (chosen(factor, samples) for factor in self.stored)
        adjoint = at_least_float32(adjoint).flatten(0, 1)
        gradient = adjoint.new_zeros(self.table_length, adjoint.shape[-1])
        return gradient.index_add_(0, indices.flatten(), adjoint)

    def squared_norms(self) -> tuple[Tensor, Tensor]:
        return self.rows_per_sample.double(), squared_norm(self.stored[1])
