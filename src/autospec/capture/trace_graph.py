"""The autograd graph between what a model returned and its layers: what in it depends on data, what couples samples."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

DATA_NODES = (
    "Index", "Gather", "Scatter", "Sort", "Topk", "Kthvalue", "Mode", "MaskedSelect", "PackPadded", "Take",
    "RepeatInterleave", "Embedding", "Nested", "Jagged", "Unique", "MaskedScatter", "Put", "Sparse", "LinalgSolve",
)  # fmt: skip
"""Nodes that pick rows by the values of a tensor: the rows of one batch say nothing of the next one's."""

PASSED_ON = "RegisterPostBackwardFunctionBackward"
"""The node by which ``fully_shard`` learns that a module's backward pass is over: it hands adjoints on as they are."""

_SECOND_FACTOR = {"Mm": 1, "Addmm": 2, "Bmm": 1, "Baddbmm": 2}
"""Matrix products, which may permute samples by a matrix, and which of their arguments the second factor is."""

_CONSTANTS = {
    "Select": ("_saved_dim", "_saved_index"),
    "Slice": ("_saved_dim", "_saved_start", "_saved_step"),
    "Transpose": ("_saved_dim0", "_saved_dim1"),
    "Permute": ("_saved_dims",),
    "Roll": ("_saved_shifts", "_saved_dims"),
    "Flip": ("_saved_dims",),
    "Stack": ("_saved_dim",),
    "Cat": ("_saved_dim",),
    "Split": ("_saved_dim",),
    "Unbind": ("_saved_dim",),
}
"""What a node moves rows by, where it is a number of the graph itself."""


@dataclass(frozen=True)
class BackwardGraph:
    """Every node that a backward pass from some outputs may visit.

    Attributes:
        nodes: all of them, in the order in which they are met.
        fingerprint: equal for two passes that do the same things in the same order.
        behind_data: those that are reached through a node that picks rows by data, or that nothing is known of.
    """

    nodes: tuple[Node, ...]
    fingerprint: int
    behind_data: frozenset[Node]


def backward_graph(
    roots: Sequence[Node], stop: frozenset[Node] = frozenset(), samples: int | None = None
) -> BackwardGraph:
    """Walk the graph from some nodes down to its leaves, or to where to stop, for a batch of so many samples."""
    place: dict[Node, int] = {}
    following: list[Sequence[tuple[Node | None, int]]] = []  # asked for once: each answer makes new objects
    order: list[Node] = []
    waiting = list(reversed(roots))
    while waiting:
        node = waiting.pop()
        if node not in place:
            place[node] = len(order)
            order.append(node)
            following.append(node.next_functions)
            if node not in stop:
                waiting.extend(after for after, _ in reversed(following[-1]) if after is not None)
    # lists within, since generators take twice as long on a graph of many nodes
    described = tuple(
        [
            (_describe(node), *[(-1 if after is None else place.get(after, -1), output) for after, output in afters])
            for node, afters in zip(order, following, strict=True)
        ]
    )
    return BackwardGraph(tuple(order), hash(described), _behind_data(order, samples))


def _behind_data(nodes: Sequence[Node], samples: int | None) -> frozenset[Node]:
    waiting = [
        following
        for node in nodes
        if _may_move(node.name()) or isinstance(node, torch.autograd.function.BackwardCFunction)
        for following in _moved_by_data(node, samples)
        if following is not None
    ]
    met: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node not in met:
            met.add(node)
            waiting.extend(following for following, _ in node.next_functions if following is not None)
    return frozenset(met)


def _moved_by_data(node: Node, samples: int | None) -> list[Node | None]:
    """The nodes after a node to which it may hand rows on in an order that data decide."""
    following = [after for after, _ in node.next_functions]
    if _moves_by_data(node):
        return following
    product = node.name().removesuffix("Backward0")
    if product not in _SECOND_FACTOR or not samples:
        return []
    first, second = _SECOND_FACTOR[product] - 1, _SECOND_FACTOR[product]
    is_by_sample = node._input_metadata[0].shape[0] % samples == 0
    if product in ("Mm", "Addmm"):
        # rows of the first factor stay rows; those of the second are mixed by whatever the first one holds
        return [following[second], *([] if is_by_sample else [following[first]])]
    return [] if is_by_sample else [following[first], following[second]]


def _moves_by_data(node: Node) -> bool:
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        return node.name() != PASSED_ON
    return _is_called_after_data(node.name())


@functools.cache
def _is_called_after_data(name: str) -> bool:
    return any(name.startswith(start) for start in DATA_NODES) or "Compiled" in name


@functools.cache
def _may_move(name: str) -> bool:
    """Whether a node of torch's own of that name may hand rows on in an order that data decide."""
    return name.removesuffix("Backward0") in _SECOND_FACTOR or _is_called_after_data(name)


def _describe(node: Node) -> tuple[Any, ...]:
    name = node.name()
    if not _constants_of(name):
        return (name,)
    return (name, *(_constant(getattr(node, attribute, None)) for attribute in _constants_of(name)))


@functools.cache
def _constants_of(name: str) -> tuple[str, ...]:
    """The attributes of nodes of a name that say what they move rows by."""
    return next((attributes for start, attributes in _CONSTANTS.items() if name.startswith(start)), ())


def _constant(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


@contextlib.contextmanager
def statistics_held_fixed(graph: BackwardGraph) -> Iterator[None]:
    """A context in which a batch norm hands its adjoint on sample by sample, as with statistics that do not move.

    Its scale does not matter to whose a row is, so that the adjoint passes as it is.
    """
    handles = []
    for node in graph.nodes:
        if "BatchNorm" in node.name():
            handles.append(node.register_hook(_passed_on))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _passed_on(of_inputs: tuple[Tensor | None, ...], of_outputs: tuple[Tensor | None, ...]) -> Any:
    if not of_inputs or of_inputs[0] is None or of_outputs[0] is None:
        return None
    if of_inputs[0].shape != of_outputs[0].shape:
        return None
    return (of_outputs[0].to(of_inputs[0].dtype), *of_inputs[1:])


@contextlib.contextmanager
def left_as_it_was(model: nn.Module, kept: Sequence[Tensor]) -> Iterator[None]:
    """A context after which random states, buffers and the gradients of ``kept`` are what they were before it."""
    devices = sorted({parameter.device for parameter in model.parameters() if parameter.is_cuda}, key=str)
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    gradients = [(tensor, tensor.grad) for tensor in kept if tensor.retains_grad]
    with torch.random.fork_rng(devices=devices):
        yield
    for buffer, value in buffers:
        if not torch.equal(buffer, value):
            buffer.data.copy_(value)  # past the version counter: backward may need what it saved
    for tensor, gradient in gradients:
        tensor.grad = gradient
