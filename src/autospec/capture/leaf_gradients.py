"""What arrives at the weights themselves: only that is a weight's gradient, and it says which backward pass it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

if TYPE_CHECKING:
    from autospec.capture.layers import Layer

LeafGradients = dict[str, Tensor]

Arrival = Callable[["Layer", Tensor], None]
"""Takes a layer and the gradient that is about to be added to its weight's."""


@contextlib.contextmanager
def leaf_gradients(layers: Sequence[Layer]) -> Iterator[LeafGradients]:
    """A context that collects what arrives at each weight, before it is added to ``weight.grad``; by layer name."""
    arrived: LeafGradients = {}

    def keep(layer: Layer, gradient: Tensor) -> None:
        if not gradient.is_sparse:
            # a copy: clipping inside the batch changes the gradient in place
            matrix = gradient.detach().flatten(1).to(torch.float64, copy=True)
            arrived[layer.name] = arrived[layer.name] + matrix if layer.name in arrived else matrix

    with arrivals(layers, keep):
        yield arrived


class _Silence:
    """Whether backward passes run that only trace rows; a plain number, since hooks of a GPU run in other threads."""

    depth = 0


@contextlib.contextmanager
def in_silence() -> Iterator[None]:
    """A context in which ``arrivals`` shows nothing: its backward passes give no weight its gradient."""
    _Silence.depth += 1
    try:
        yield
    finally:
        _Silence.depth -= 1


@contextlib.contextmanager
def arrivals(layers: Sequence[Layer], arrive: Arrival) -> Iterator[None]:
    """A context in which every gradient that a backward pass adds to a trained weight is shown beforehand.

    ``torch.autograd.grad`` and ``backward(inputs=...)`` of other tensors add nothing and show nothing.
    """
    # what arrives at a parameter is not the gradient of a weight that is computed from it
    own = [layer for layer in layers if layer.parameter.requires_grad and not (layer.computed or layer.is_sharded)]
    handles = [shown(layer.parameter, layer, arrive) for layer in own]
    try:
        yield
    finally:
        for _, handle in handles:
            handle.remove()


def shown(weight: Tensor, layer: Layer, arrive: Arrival) -> tuple[Node, RemovableHandle]:
    """Show what arrives at one weight; the node that it arrives at lives as long as it is kept."""

    def before(gradients: Sequence[Tensor | None]) -> None:
        if gradients[0] is not None and not _Silence.depth:
            arrive(layer, gradients[0])

    # on the node, not the weight: nothing is left on the model
    node = torch.autograd.graph.get_gradient_edge(weight).node
    return node, node.register_prehook(before)
