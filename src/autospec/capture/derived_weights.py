"""Tensors that are computed from weights alone, and the gradients of those weights from theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autospec.capture.rules.function_factors import MappedFactors
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors

Made = tuple[Any, tuple[Any, ...], dict[str, Any], int | None]
"""The call that computed a tensor: function, arguments, keywords, and which of its outputs it is."""


@dataclass(eq=False)
class DerivedWeight:
    """A weight, or a tensor computed from weights alone.

    Attributes:
        tensor: its value in the training graph.
        layer: the layer that it is the weight of, where a module computes it; None for others.
        made: the call that computed it; None for a parameter.
        parents: the weights that it was computed from.
    """

    tensor: Tensor
    layer: str | None = None
    made: Made | None = None
    parents: tuple[DerivedWeight, ...] = field(default=(), repr=False)

    def roots(self) -> Iterator[DerivedWeight]:
        """This tensor and everything that it was computed from, each once."""
        met: set[int] = set()
        waiting = [self]
        while waiting:
            weight = waiting.pop()
            if id(weight) not in met:
                met.add(id(weight))
                if all(parent.tensor is not weight.tensor for parent in weight.parents):  # not one changed in place
                    yield weight
                waiting.extend(weight.parents)

    @property
    def eps(self) -> float:
        """The spacing of the coarsest numbers that it was computed in."""
        return max(torch.finfo(weight.tensor.dtype).eps for weight in self.roots() if weight.tensor.is_floating_point())


def is_view(used: DerivedWeight, root: DerivedWeight) -> bool:
    """Whether a tensor is a weight, or holds entries of it and nothing else."""
    return used.tensor is root.tensor or entries_of_view(used.tensor, root.tensor) is not None


def factors_of_root(factors: GradientFactors, used: DerivedWeight, root: DerivedWeight) -> GradientFactors:
    """The factors of a weight that was used through a tensor computed from it.

    Args:
        factors: those of the tensor that was used.
        used: that tensor.
        root: the weight.

    Raises:
        AutoSpecError: where computing the tensor again gives another one.
    """
    if used.tensor is root.tensor:
        return factors
    view, weight = used.tensor.detach(), root.tensor.detach()
    entries = entries_of_view(used.tensor, root.tensor)
    if entries is None:
        return MappedFactors(factors, _through_graph(used, root), len(weight), used.eps)
    if type(factors) is GradientFactors:
        placed = _placed(factors, view, weight)
        if placed is not None:
            return placed

    def pull_back(product: Tensor) -> Tensor:
        gradient = product.new_zeros(weight.numel()).index_add_(0, entries.flatten(), product.flatten())
        return gradient.reshape(weight.shape).flatten(1)

    return MappedFactors(factors, pull_back, len(weight))


def entries_of_view(view: Tensor, weight: Tensor) -> Tensor | None:
    """Where in a weight, flattened, each entry of a view of it lies; None where it is no view, or the weight no plain
    tensor."""
    is_view = view._base is not None and (view._base is weight or view._base is weight._base)
    if not is_view or view.dtype != weight.dtype or not weight.is_contiguous():
        return None
    entries = torch.arange(weight.numel(), device=weight.device)
    return entries.as_strided(view.shape, view.stride(), view.storage_offset() - weight.storage_offset())


def _placed(factors: GradientFactors, view: Tensor, weight: Tensor) -> GradientFactors | None:
    """The factors of a weight from those of its transpose, some of its rows, or itself in another shape."""
    if weight.dim() > 2 and view.shape[:1] != weight.shape[:1]:
        return None
    matrix = weight.flatten(1)
    offset = view.storage_offset() - weight.storage_offset()
    if view.shape == matrix.shape[::-1] and view.stride() == matrix.stride()[::-1] and not offset:
        turned = not factors.transposed
        return _again(factors, transposed=turned)
    is_rows = view.stride() == matrix.stride() and view.shape[1] == matrix.shape[1] and not offset % matrix.shape[1]
    if is_rows and (not factors.transposed or len(view) == len(matrix)):
        return _again(factors, first_row=offset // matrix.shape[1])
    return None


def _again(factors: GradientFactors, *, transposed: bool | None = None, first_row: int = 0) -> GradientFactors:
    return GradientFactors(
        factors.activation,
        factors.adjoint,
        first_row=first_row,
        transposed=factors.transposed if transposed is None else transposed,
    )


def _through_graph(used: DerivedWeight, root: DerivedWeight) -> Callable[[Tensor], Tensor]:
    """The derivative by a weight from one by a tensor computed from it, on a graph of its own."""
    weight = root.tensor.detach().requires_grad_()
    with torch.enable_grad():
        again = _computed(used, {id(root): weight})
    if not torch.allclose(again, used.tensor, equal_nan=True):
        raise AutoSpecError(
            "its weight is computed with random numbers or from values that changed, so that it cannot be led back to "
            "the parameter"
        )

    def pull_back(product: Tensor) -> Tensor:
        seed = product.reshape(again.shape).to(again.dtype)
        (gradient,) = torch.autograd.grad(again, weight, seed, retain_graph=True)
        return gradient.flatten(1)

    return pull_back


def _computed(weight: DerivedWeight, values: dict[int, Tensor]) -> Tensor:
    """A tensor computed again from other values of the weights that it comes from."""
    if id(weight) in values:
        return values[id(weight)]
    if weight.made is None:
        value = _computed(weight.parents[0], values) if weight.parents else weight.tensor.detach()
    else:
        func, args, keywords, pick = weight.made
        parents = {id(parent.tensor): parent for parent in weight.parents}

        def again(argument: Any) -> Any:
            if isinstance(argument, Tensor):
                parent = parents.get(id(argument))
                return argument.detach() if parent is None else _computed(parent, values)
            if isinstance(argument, (tuple, list)):
                return type(argument)(again(part) for part in argument)
            return argument

        given = [again(argument) for argument in args]
        if args and args[0] is weight.tensor:  # in place: what it overwrites is kept
            given[0] = given[0].clone()
        value = func(*given, **{key: again(part) for key, part in keywords.items()})
        value = value if pick is None else value[pick]
    values[id(weight)] = value
    return value
