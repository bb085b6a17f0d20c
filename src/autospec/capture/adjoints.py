"""Waiting for the adjoints of a layer's outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge


def on_adjoints(
    outputs: Sequence[Tensor], receive: Callable[[Sequence[Tensor | None]], None]
) -> tuple[list[Node], list[GradientEdge]]:
    """Call ``receive`` once per backward pass with the adjoints of outputs, None for those that it does not reach.

    Returns the nodes of the graph that are held for it, to be cleared when no backward pass is to be heard any more,
    and the edges at which the adjoints arrive.

    torch's own ``register_multi_grad_hook`` stays silent where an output is what the backward pass begins at.
    """
    sources = [_source(outputs[0]), *((output, _as_it_is) for output in outputs[1:])]
    # what hooks hold of their own graph keeps it alive for ever: no tensors, and the nodes until the batch ends
    transforms = [transform for _, transform in sources]
    edges = [get_gradient_edge(source) for source, _ in sources]
    nodes = [edge.node for edge in edges]
    arrived: dict[int, dict[int, Tensor | None]] = {}

    def hook_of(place: int) -> Callable[[Tensor], None]:
        def hook(adjoint: Tensor) -> None:
            task = torch._C._current_graph_task_id()
            of_task = arrived.setdefault(task, {})
            of_task[place] = adjoint if adjoint is None else transforms[place](adjoint)
            coming = (node for other, node in enumerate(nodes) if other not in of_task)
            if not any(torch._C._will_engine_execute_node(node) for node in coming):
                del arrived[task]
                receive([of_task.get(other) for other in range(len(transforms))])

        return hook

    for place, (source, _) in enumerate(sources):
        source.register_hook(hook_of(place))
    return nodes, edges


def _source(output: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The tensor to hook for the adjoint of a layer's output, and a function from its gradient to the output's.

    Where the output is a view (a linear layer's, with leading dimensions; a transposed sequence), an in-place
    activation after it takes it out of the graph, and only its base still receives an adjoint: the same numbers.
    That holds for a layer's main output alone, others may be views of what the layer itself goes on with.
    """
    base = output._base
    if base is None or base.grad_fn is None or not _is_permuted(base, output):
        return output, _as_it_is
    shape, strides = output.shape, output.stride()
    return base, lambda adjoint: adjoint.contiguous().as_strided(shape, strides)


def _as_it_is(adjoint: Tensor) -> Tensor:
    return adjoint


def _is_permuted(base: Tensor, view: Tensor) -> bool:
    """Whether a view holds every number of its base once."""
    slowest_first = sorted(range(view.dim()), key=view.stride, reverse=True)
    return base.is_contiguous() and base.numel() == view.numel() and view.permute(slowest_first).is_contiguous()
