"""Factors of weights that are used by a bare function call, and of what such a weight was computed from."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from autospec.capture.rules.linear import rows_of
from autospec.spectra.factors import GradientFactors, at_least_float32, chosen, squared_norm


class StackedFactors(GradientFactors):
    """The factors of a stack of matrices, each with rows of its own: ``∇W_b = A_bᵀ Δ_b`` (experts, heads).

    The weight's matrix has one row per member of the stack, ``weight.flatten(1)``. Its rows of ``A`` and ``Δ`` are not
    those of that matrix, so that gradients alone are known of it.

    Args:
        activation: (stack, n, positions, in).
        adjoint: (stack, n, positions, out).
        out_first: whether a member is (out × in) instead of (in × out).
    """

    has_rows = False

    def __init__(self, activation: Tensor, adjoint: Tensor, *, out_first: bool = False) -> None:
        super().__init__(activation, adjoint, transposed=not out_first)

    @property
    def height(self) -> int:
        return self.blocks

    def product(self, samples: Tensor) -> Tensor:
        """(stack, in · out): the samples' part of the gradient (paper, eq. 5)."""
        activation, adjoint = self.of_samples(samples)
        left, right = (activation, adjoint) if self.transposed else (adjoint, activation)
        return (left.mT @ right).flatten(1)


class BilinearFactors(GradientFactors):
    """The factors of ``y_o = x₁ᵀ W_o x₂``: a row of ``A`` is the outer product of two inputs, made when asked for.

    Args:
        inputs: (n, positions, in₁) and (n, positions, in₂).
        adjoint: (n, positions, out).
    """

    def __init__(self, inputs: tuple[Tensor, Tensor], adjoint: Tensor) -> None:
        self._second = inputs[1].detach()
        super().__init__(inputs[0], adjoint)

    @property
    def activation(self) -> Tensor:
        outer = self.stored[0][0, ..., :, None] * self._second[..., None, :]
        return outer.flatten(-2).unsqueeze(0)

    @property
    def samples(self) -> int:
        return self.stored[0].shape[1]

    @property
    def positions(self) -> int:
        return self.stored[0].shape[2]

    @property
    def blocks(self) -> int:
        return 1

    def product(self, samples: Tensor) -> Tensor:
        """(out, in₁ · in₂): the samples' part of the gradient (paper, eq. 5)."""
        precise = torch.promote_types(self.dtype, torch.float32)
        first, adjoint = (chosen(factor[0], samples).to(precise) for factor in self.stored)
        second = chosen(self._second, samples).to(precise)
        return torch.einsum("npo,npi,npj->oij", adjoint, first, second).flatten(1)

    def squared_norms(self) -> tuple[Tensor, Tensor]:
        norms = [at_least_float32(side).double().square().sum(-1) for side in (self.stored[0][0], self._second)]
        return (norms[0] * norms[1]).sum(1), squared_norm(self.stored[1][0])


class CallFactors(GradientFactors):
    """A use of a weight by any function: its gradient is linear in the adjoint of the function's output.

    The samples' part is the function's own backward pass with the adjoints of the others set to zero. There is no
    ``A``; its place is taken by ones, or by the size of what the weight met, for the scale of rounding.

    Args:
        adjoint: (n, ...), the derivative by the output of the call.
        backward: the derivative by the weight from one by the output.
        shape: that of the weight.
        met: the other inputs of the call.
    """

    has_rows = False

    def __init__(
        self, adjoint: Tensor, backward: Callable[[Tensor], Tensor], shape: torch.Size, met: list[Tensor]
    ) -> None:
        rows = rows_of(adjoint if adjoint.dim() > 1 else adjoint[:, None])
        super().__init__(rows.new_ones(*rows.shape[:2], 1), rows)
        self._shape, self._of_weight, self._backward = adjoint.shape, shape, backward
        self._met = [tensor for tensor in met if tensor.is_floating_point()]

    @property
    def height(self) -> int:
        return self._of_weight[0] if self._of_weight else 1

    def product(self, samples: Tensor) -> Tensor:
        """(rows, columns): the samples' part of the gradient (paper, eq. 5)."""
        adjoint = self.stored[1]
        if len(samples) < self.samples:
            adjoint = torch.zeros_like(adjoint).index_copy_(1, samples, adjoint.index_select(1, samples))
        return self._backward(adjoint.reshape(self._shape)).reshape(self.height, -1)

    def squared_norms(self) -> tuple[Tensor, Tensor]:
        ones, of_adjoint = super().squared_norms()
        for tensor in self._met:
            if tensor.dim() and len(tensor) == self.samples:
                ones = ones + squared_norm(tensor.reshape(len(tensor), -1))
        return ones, of_adjoint


class MappedFactors(GradientFactors):
    """The factors of a weight that was used through another tensor: a view of it, or one computed from it.

    Args:
        used: the factors of the tensor that was used; their product holds its entries in order.
        pull_back: (entries of the used tensor) → (rows, columns), the derivative by the weight's matrix.
        rows: how many rows that matrix has.
        eps: the spacing of the numbers that the used tensor was computed in.
    """

    has_rows = False

    def __init__(
        self, used: GradientFactors, pull_back: Callable[[Tensor], Tensor], rows: int, eps: float = 0.0
    ) -> None:
        self.used, self._pull_back, self._rows = used, pull_back, rows
        self._rounded_before = eps
        self.stored = used.stored
        self.first_row = 0
        self.transposed = used.transposed
        self._row_counts = used._row_counts

    @property
    def activation(self) -> Tensor:
        return self.used.activation

    @property
    def adjoint(self) -> Tensor:
        return self.used.adjoint

    @property
    def blocks(self) -> int:
        return self.used.blocks

    @property
    def samples(self) -> int:
        return self.used.samples

    @property
    def positions(self) -> int:
        return self.used.positions

    @property
    def height(self) -> int:
        return self._rows

    @property
    def eps(self) -> float:
        return max(self.used.eps, self._rounded_before)

    @property
    def rows_per_sample(self) -> Tensor:
        return self.used.rows_per_sample

    def product(self, samples: Tensor) -> Tensor:
        """(rows, columns): the samples' part of the gradient (paper, eq. 5) by the weight."""
        return self._pull_back(self.used.product(samples))

    def squared_norms(self) -> tuple[Tensor, Tensor]:
        return self.used.squared_norms()

    def scaled(self, factor: float) -> GradientFactors:
        other = copy.copy(self)
        other.used = self.used.scaled(factor)
        other.stored = other.used.stored
        return other
