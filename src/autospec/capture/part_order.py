"""Parts of a model that are called one by one: what goes from one into the next must keep the samples in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_flatten

from autospec.capture.agreement import Unsplittable, seeds_of, tolerance_of, trained


class PartOrder:
    """Holds what a call of a part is given against what the calls before it in the batch returned.

    Backward is linear: where the samples keep their order, scaling each sample's adjoint of the input by a factor of
    its own scales that sample's adjoint of the earlier output, and no other's.

    Attributes:
        has_parts: whether something went from one part into the next: what happens between them is the program's.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._samples = 0
        self.has_parts = False
        self._returned: list[GradientEdge] = []

    def begin(self, samples: int, is_due: bool) -> None:
        """A batch begins; it is looked at where it is due."""
        self._samples = samples if is_due else 0
        self._returned.clear()

    def __enter__(self) -> None:
        """A context of one batch, after which the graph is let go of."""

    def __exit__(self, *exception: object) -> None:
        self._returned.clear()

    def left(self, output: Any) -> None:
        """A part has returned."""
        if self._samples > 1:
            self._returned += [get_gradient_edge(tensor) for tensor in trained(output)]

    def entered(self, module: str, arguments: Any) -> None:
        """A part is called; AutoSpecError where samples have been moved since another returned them."""
        given = [leaf for leaf in tree_flatten(arguments)[0] if isinstance(leaf, Tensor) and leaf.requires_grad]
        self.has_parts |= bool(self._returned and given)
        if self._returned and not all(self._keeps_order(leaf) for leaf in given if leaf.is_floating_point()):
            raise Unsplittable(
                f"engine={self._engine!r}: samples are in another order in what {module} is given than in what another "
                "part of the model returned, so that its rows cannot be told; use engine='hooks', which traces them, "
                "or call the model as a whole"
            )

    def _keeps_order(self, given: Tensor) -> bool:
        """Whether some dimension of what is given holds the samples in the order of what was returned."""
        dimensions = [dimension for dimension, length in enumerate(given.shape) if length == self._samples]
        if not dimensions:
            return True  # the engine itself refuses it
        generator = torch.Generator().manual_seed(self._samples)
        factors = (0.5 + 1.5 * torch.rand(self._samples, generator=generator)).to(given)
        seed = seeds_of([given])[0]
        plain = self._led_back(given, seed)
        for dimension in dimensions:
            scaled = self._led_back(given, seed * _along(factors, dimension, given.dim()))
            if all(_is_scaled(one, other, factors) for one, other in zip(plain, scaled, strict=True)):
                return True
        return False

    def _led_back(self, given: Tensor, seed: Tensor) -> Sequence[Tensor | None]:
        """The adjoints of what was returned, for an adjoint of what is given."""
        return torch.autograd.grad([given], self._returned, [seed], retain_graph=True, allow_unused=True)


def _is_scaled(plain: Tensor | None, scaled: Tensor | None, factors: Tensor) -> bool:
    """Whether each sample's part along some dimension was multiplied by its own factor."""
    if plain is None or scaled is None:
        return True
    size = torch.linalg.vector_norm(plain)
    dimensions = [dimension for dimension, length in enumerate(plain.shape) if length == len(factors)]
    return not dimensions or any(
        torch.linalg.vector_norm(scaled - plain * _along(factors.to(plain), dimension, plain.dim()))
        <= tolerance_of(plain.dtype) * size
        for dimension in dimensions
    )


def _along(factors: Tensor, dimension: int, dimensions: int) -> Tensor:
    return factors.reshape([-1 if place == dimension else 1 for place in range(dimensions)])
