"""Embeddings: the activation is one-hot, so its products are sums of adjoints and its spectrum is a count."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from autospec.capture.rules.linear import rows_of
from autospec.capture.rules.registry import LayerCall, register_rule
from autospec.spectra.factors import GradientFactors, at_least_float32, chosen, squared_norm
from autospec.spectra.singular import on_capable_device


def refusal(layer: nn.Embedding) -> str | None:
    """Why an embedding's gradient is not a plain sum over its samples."""
    if layer.sparse:
        return "sparse=True is not supported; use sparse=False or leave the layer out"
    if layer.scale_grad_by_freq:
        return "scale_grad_by_freq=True divides by counts over the whole batch, so that no group has a part of its own"
    return None


@register_rule(nn.Embedding, refuse=refusal)
def embedding(layer: nn.Embedding, call: LayerCall) -> dict[str, GradientFactors]:
    """``y = A W`` with one-hot rows ``A``: ``∇W = Aᵀ Δ``; positions with ``padding_idx`` are no rows.

    ``max_norm`` rescales the table before the look-up and outside the gradient, which it leaves as it is.
    """
    adjoint = rows_of(call.adjoint)
    positions = call.activation.reshape(len(adjoint), -1)
    present = torch.ones_like(positions, dtype=torch.bool)
    if layer.padding_idx is not None:
        present = positions != layer.padding_idx
    return {"weight": EmbeddingFactors(positions, adjoint, present, layer.num_embeddings)}


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
