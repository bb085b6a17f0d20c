"""What backward leaves in the weights, to hold the group gradients against."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from autospec.capture.layers import Layer

LeafGradients = dict[str, Tensor]


@contextlib.contextmanager
def leaf_gradients(layers: Sequence[Layer]) -> Iterator[LeafGradients]:
    """A context that collects what arrives at each weight, before it is added to ``weight.grad``; by layer name."""
    arrived: LeafGradients = {}
    handles = []
    for layer in layers:
        if layer.computed:
            continue  # what arrives at the parameter is not the gradient of the weight that is computed from it

        def keep(gradients: Sequence[Tensor | None], name: str = layer.name) -> None:
            if gradients[0] is not None and not gradients[0].is_sparse:
                gradient = gradients[0].detach().flatten(1).double()
                arrived[name] = arrived[name] + gradient if name in arrived else gradient

        # on the node, not the weight: nothing is left on the model
        node = torch.autograd.graph.get_gradient_edge(layer.parameter).node
        handles.append((node, node.register_prehook(keep)))
    try:
        yield arrived
    finally:
        for _, handle in handles:
            handle.remove()
