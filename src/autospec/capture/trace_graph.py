"""The autograd graph between what a model returned and its layers: what in it depends on data, what couples samples."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

DATA_NODES = (
    "Index", "Gather", "Scatter", "Sort", "Topk", "Kthvalue", "Mode", "MaskedSelect", "PackPadded", "Take",
    "RepeatInterleave", "Embedding", "Nested", "Jagged", "Unique", "MaskedScatter", "Put", "Sparse", "LinalgSolve",
)  # fmt: skip
"""Nodes that pick rows by the values of a tensor: the rows of one batch say nothing of the next one's."""

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
        place: all of them, by the order in which they are met.
        following: for each, the nodes that it hands adjoints on to, and which of their outputs these are of.
        fingerprint: equal for two passes that do the same things in the same order.
    """

    place: Mapping[Node, int]
    following: Sequence[Sequence[tuple[Node | None, int]]]
    fingerprint: int

    def behind_data(self, samples: int) -> frozenset[Node]:
        """The nodes reached through one that picks rows by data, or of which nothing is known, in such a batch."""
        waiting = [
            following
            for node, afters in zip(self.place, self.following, strict=True)
            if _may_move(node.name()) or isinstance(node, BackwardCFunction)
            for following in _moved_by_data(node, [after for after, _ in afters], samples)
            if following is not None
        ]
        met: set[Node] = set()
        while waiting:
            node = waiting.pop()
            if node not in met and node in self.place:
                met.add(node)
                waiting.extend(after for after, _ in self.following[self.place[node]] if after is not None)
        return frozenset(met)


def backward_graph(roots: Sequence[Node], stop: frozenset[Node] = frozenset()) -> BackwardGraph:
    """Walk the graph from some nodes down to its leaves, or to where to stop."""
    place: dict[Node, int] = {}
    following: list[Sequence[tuple[Node | None, int]]] = []  # asked for once: each answer makes new objects
    # every batch walks: one loop, and one description for all nodes of a class
    described: list[Any] = []
    waiting: list[tuple[Node | None, int]] = [(root, 0) for root in reversed(roots)]
    while waiting:
        node, output = waiting.pop()
        if node is None:
            described.append(None)
            continue
        earlier = place.get(node)
        if earlier is not None:
            described.append((earlier, output))
            continue
        place[node] = len(following)
        name, constants = _DESCRIPTIONS.get(type(node)) or _description(node)
        afters = () if node in stop else node.next_functions
        described.append((name, output, len(afters)))
        for constant in constants:
            value = getattr(node, constant, None)
            described.append(tuple(value) if isinstance(value, (list, tuple)) else value)
        following.append(afters)
        waiting.extend(afters[::-1])
    return BackwardGraph(place, following, hash(tuple(described)))


_DESCRIPTIONS: dict[type, tuple[str, tuple[str, ...]]] = {}
"""The name of the nodes of a class, and the attributes that say what they move rows by."""


def _description(node: Node) -> tuple[str, tuple[str, ...]]:
    name = node.name()
    constants = next((attributes for start, attributes in _CONSTANTS.items() if name.startswith(start)), ())
    if type(node).__name__ == name.rpartition("::")[2]:  # a class for itself, of torch's own
        _DESCRIPTIONS[type(node)] = name, constants
    return name, constants


def _moved_by_data(node: Node, following: Sequence[Node | None], samples: int) -> Sequence[Node | None]:
    """The nodes after a node to which it may hand rows on in an order that data decide."""
    if _moves_by_data(node):
        return following
    product = node.name().removesuffix("Backward0")
    if product not in _SECOND_FACTOR:
        return []
    first, second = _SECOND_FACTOR[product] - 1, _SECOND_FACTOR[product]
    is_by_sample = node._input_metadata[0].shape[0] % samples == 0
    if product in ("Mm", "Addmm"):
        # rows of the first factor stay rows; those of the second are mixed by whatever the first one holds
        return [following[second], *([] if is_by_sample else [following[first]])]
    return [] if is_by_sample else [following[first], following[second]]


def _moves_by_data(node: Node) -> bool:
    return isinstance(node, BackwardCFunction) or _is_called_after_data(node.name())


@functools.cache
def _is_called_after_data(name: str) -> bool:
    return any(name.startswith(start) for start in DATA_NODES) or "Compiled" in name


@functools.cache
def _may_move(name: str) -> bool:
    """Whether a node of torch's own of that name may hand rows on in an order that data decide."""
    return name.removesuffix("Backward0") in _SECOND_FACTOR or _is_called_after_data(name)


@contextlib.contextmanager
def statistics_held_fixed(graph: BackwardGraph) -> Iterator[None]:
    """A context in which a batch norm hands its adjoint on sample by sample, as with statistics that do not move.

    Its scale does not matter to whose a row is, so that the adjoint passes as it is.
    """
    handles = []
    for node in graph.place:
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
