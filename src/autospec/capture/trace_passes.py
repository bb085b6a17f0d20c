"""Tracing forward passes: the first of a kind by backward passes of its own, later ones from what was proven."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from autospec.capture.leaf_gradients import in_silence
from autospec.capture.proved_again import has_diverged, is_due
from autospec.capture.steady_rows import has_steady_rows
from autospec.capture.trace import Part, Place, Returned, Rows, Traced, readings, returned_tensors, trace_rows
from autospec.capture.trace_graph import BackwardGraph, backward_graph, left_as_it_was, statistics_held_fixed
from autospec.capture.trace_layout import BY_DATA, NOT_REACHED, SHARED, RowTrace, differs, with_axes

if TYPE_CHECKING:
    from autospec.capture.forward_hooks import Call

FOLLOWED = 16
"""How many calls of outermost modules back, within a batch, a later one may tell of."""

KEPT = 64
"""How many kinds of forward pass are remembered."""

MOVED = (
    "ran in a pass in which the rows of layer {name!r} are other samples' than in an earlier batch, though the model "
    "made the same calls: a mask or a matrix moves samples, and batches in between may be wrong; move samples by "
    "indexing, x[order], or leave the layer out with layers=['!{name}']"
)

Kind = tuple[int, tuple[Any, ...], tuple[Any, ...]]
"""What tells passes apart whose rows need not be the same samples'."""


@dataclass
class Remembered:
    """What was proved of a kind of pass.

    Attributes:
        traced: whose rows are.
        shapes: those of the calls.
        cost: how many backward passes the proof took.
        is_steady: whether the graph leaves nothing for values to change.
        met: how many passes of the kind there were.
    """

    traced: Traced
    shapes: dict[Any, tuple[int, ...]]
    cost: int
    is_steady: bool
    met: int = 1


_AXES: dict[str, Callable[[Sequence[int]], tuple[int, int]]] = {
    "leading": lambda shape: (shape[0], math.prod(shape[1:-1])),
    "channels": lambda shape: (shape[0], math.prod(shape[2:])),
    "whole": lambda shape: (shape[0], 1),
    "time first": lambda shape: (shape[1], shape[0]),
}
"""The rows of a layer's factors, (first, positions), as its output's shape tells them."""


class Tracer:
    """Traces the calls of each forward pass to samples, and remembers what was proven of passes of the same kind.

    A pass is of the same kind as an earlier one where its graph is the same, does not pick rows by data, and its
    outputs differ in lengths alone. Each kind is proved once, and again at every so many passes of it that proofs cost
    1 %. Where something in the graph could move rows by its values (a mask by which samples are multiplied), a kind is
    proved at its 2nd, 4th, 8th, ... pass, too. Where the second differs, every pass of the kind is traced from then
    on; where a later one does, rows may have been taken for others' meanwhile, and it is refused.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kinds: dict[Kind, Remembered] = {}
        self._by_data: set[Kind] = set()
        self._collected: Rows | None = None
        self.recomputed: Traced | None = None
        self.last: Traced | None = None
        self.passes = 0

    @property
    def is_tracing(self) -> bool:
        """Whether the backward pass that runs now is one of the tracer's own."""
        return self._collected is not None

    @property
    def follows_from_shapes(self) -> bool:
        """Whether what was traced last holds for every pass of its kind."""
        return any(remembered.traced is self.last for remembered in self._kinds.values())

    @property
    def is_steady(self) -> bool:
        """Whether no values could make it another pass's rows."""
        return any(kind.traced is self.last and kind.is_steady for kind in self._kinds.values())

    def collect(self, rows: Iterable[tuple[Part, Tensor]]) -> None:
        """Take the adjoints that arrive at one call."""
        assert self._collected is not None
        for part, adjoint in rows:
            # a call that several backward passes reach at once adds up
            self._collected[part] = self._collected[part] + adjoint if part in self._collected else adjoint.clone()

    def trace(self, calls: Sequence[Call], output: Any, samples: int, earlier: Sequence[Call] = ()) -> bool:
        """Find out whose the rows of some calls are, and write it down on each.

        Args:
            calls: those made by the call of the outermost module that has just returned.
            output: what that returned.
            samples: the number of samples of the batch.
            earlier: those of outermost modules before it, whose output may have gone into it: it tells more of them.

        Returns:
            Whether the pass was of a kind not met before.
        """
        outputs = [
            (name, tensor, packed)
            for name, tensor, packed in returned_tensors(output)
            if tensor.requires_grad and tensor.is_floating_point()
        ]
        roots = [get_gradient_edge(tensor).node for _, tensor, _ in outputs]
        far = len({call.outermost for call in earlier}) > FOLLOWED
        stop = frozenset(edge.node for call in earlier for edge in call.edges) if far else frozenset()
        graph = backward_graph([*roots, *(edge.node for call in calls for edge in call.edges)], stop)
        again = [] if far else [call for call in earlier if any(edge.node in graph.place for edge in call.edges)]
        both = [*again, *calls]
        kind = _kind(graph, both)
        traced = self._remembered(kind, both, samples)
        is_new = samples > 1 and (traced is None or self._is_to_prove_again(kind, both, outputs, samples))
        if is_new:
            passes = self.passes
            fresh = self._prove(both, outputs, samples, graph)
            if traced is None:
                self._remember(kind, both, fresh, graph, samples, self.passes - passes)
            traced = fresh if traced is None else self._compared(kind, traced, fresh, samples)
        for call in calls:
            call.traced = traced
        for call in again:
            if traced is not None and traced.tells_of(call.key):
                call.traced = traced
        self.last = self.recomputed = traced
        return is_new

    def _remembered(self, kind: Kind, calls: Sequence[Call], samples: int) -> Traced | None:
        if kind not in self._kinds:
            return None
        traced, shapes = self._kinds[kind].traced, self._kinds[kind].shapes
        now = _shapes(calls)
        for (key, _, _), trace in traced.parts.items():
            if now.get(key) == shapes.get(key) and (trace.layout is None or trace.layout.samples == samples):
                continue
            if trace.how == SHARED or (trace.how == NOT_REACHED and trace.proven):
                continue
            if trace.layout is None or trace.axes is None or key not in now:
                return None
            if trace.layout.for_batch(samples, *_AXES[trace.axes](now[key])) is None:
                return None
        return traced

    def _remember(
        self, kind: Kind, calls: Sequence[Call], traced: Traced, graph: BackwardGraph, samples: int, cost: int
    ) -> None:
        """Keep what follows from shapes alone."""
        behind_data = graph.behind_data(samples)
        by_data = any(edge.node in behind_data for call in calls for edge in call.edges)
        unproven = any(trace.how == BY_DATA or not trace.proven for trace in traced.parts.values())
        if traced.refusal or by_data or unproven or kind in self._by_data:
            self._kinds.pop(kind, None)
            return
        if len(self._kinds) >= KEPT:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = Remembered(traced, _shapes(calls), cost, has_steady_rows(graph, samples, self._model))

    def _is_to_prove_again(self, kind: Kind, calls: Sequence[Call], outputs: Sequence[Place], samples: int) -> bool:
        """Whether what is remembered of a kind is to be held against another proof, at this pass of it."""
        remembered = self._kinds[kind]
        remembered.met += 1
        if remembered.traced.refusal or not is_due(remembered.met, remembered.cost, remembered.is_steady):
            return False
        if has_diverged(self._model):
            return False
        # where two dimensions could be the samples, a batch of other lengths tells less than the one that was traced
        is_plain = all(len(readings(_returned(*place), samples)) <= 1 for place in outputs)
        return is_plain or remembered.shapes == _shapes(calls)

    def _compared(self, kind: Kind, earlier: Traced, fresh: Traced, samples: int) -> Traced:
        """What holds for a pass that was proved again."""
        other = next(
            (part for part, trace in earlier.parts.items() if differs(trace, fresh.parts.get(part), samples)), None
        )
        if other is None or fresh.refusal:
            return earlier
        if self._kinds[kind].met == 2:
            del self._kinds[kind]
            self._by_data.add(kind)
            return fresh
        self._kinds[kind].traced = refused = Traced({}, refusal=MOVED.format(name=other[1]))
        return refused

    def _prove(self, calls: Sequence[Call], outputs: Sequence[Place], samples: int, graph: BackwardGraph) -> Traced:
        """Trace by backward passes of their own, after which everything is as it was."""
        returned = [_returned(*place) for place in outputs]
        watched = [call for call in calls if not call.watched.is_witness]
        instead = [_returned(f"layer {c.watched.name!r}", c.output) for c in reversed(watched) if c.output is not None]
        if all(len(readings(output, samples)) == 1 for output in returned):
            calls = watched  # there is nothing for witnesses to tell
        kept = [tensor for _, tensor, _ in outputs] + [call.output for call in calls if call.output is not None]
        sought = [edge for call in calls for edge in call.edges]

        is_reentrant = any(node.name() == "CheckpointFunctionBackward" for node in graph.place)

        def run(edges: Sequence[GradientEdge], seeds: Sequence[Tensor]) -> Rows:
            self.passes += 1
            collected: Rows = {}
            self._collected = collected
            try:
                with in_silence():
                    if is_reentrant:
                        self._run_whole(edges, seeds)
                    elif sought:
                        torch.autograd.grad(edges, sought, list(seeds), retain_graph=True, allow_unused=True)
            finally:
                self._collected = None
            return collected

        with left_as_it_was(self._model, kept), statistics_held_fixed(graph):
            try:
                traced = trace_rows(returned, instead, samples, run)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                return Traced({}, refusal=f"cannot be traced to samples by another backward pass: {reason}")
        parts = dict(traced.parts)
        reached = {key for key, _, _ in parts}
        structure = backward_graph([get_gradient_edge(tensor).node for _, tensor, _ in outputs]).place
        for call in calls:
            if call.key not in reached and not call.watched.is_witness:
                in_graph = any(edge.node in structure for edge in call.edges)
                parts |= {
                    (call.key, use.name, place): RowTrace(NOT_REACHED, proven=not in_graph)
                    for use in call.watched.uses
                    for place in range(3)
                }
        shapes = _shapes(calls)
        parts = {part: _with_axes(trace, shapes.get(part[0])) for part, trace in parts.items()}
        recorded = {call.key for call in calls if not call.watched.is_witness}
        inside = {part for part in parts if part[0][2]}  # calls that a checkpoint made again
        parts = {part: trace for part, trace in parts.items() if part[0] in recorded or part in inside}
        return Traced(parts, traced.read, traced.refusal, traced.dimensions)

    def _run_whole(self, edges: Sequence[GradientEdge], seeds: Sequence[Tensor]) -> None:
        """A backward pass down to the weights, which a reentrant checkpoint needs; their gradients are put back."""
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        if any(parameter._post_accumulate_grad_hooks for parameter in parameters):
            raise RuntimeError("a reentrant checkpoint and hooks that run after gradients; use use_reentrant=False")
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        try:
            torch.autograd.backward(list(edges), list(seeds), retain_graph=True)
        finally:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient


def _kind(graph: BackwardGraph, calls: Sequence[Call]) -> Kind:
    """What passes have in common whose rows are the same samples': the graph, the calls, and where they lie in it."""
    where = tuple([tuple([graph.place.get(edge.node, -1) for edge in call.edges]) for call in calls])
    return graph.fingerprint, tuple(call.key for call in calls), where


def _shapes(calls: Sequence[Call]) -> dict[Any, tuple[int, ...]]:
    return {call.key: call.shape for call in calls}


def _returned(name: str, tensor: Tensor, packed: Tensor | None = None) -> Returned:
    return Returned(get_gradient_edge(tensor), tuple(tensor.shape), tensor.dtype, tensor.device, name, packed)


def _with_axes(trace: RowTrace, shape: tuple[int, ...] | None) -> RowTrace:
    """The trace with the dimensions of the layer's output that its rows are, where one reading fits."""
    if trace.layout is None or shape is None or len(shape) < 2:
        return trace
    rows = (trace.layout.first, trace.layout.positions)
    fitting = [name for name, rows_of in _AXES.items() if rows_of(shape) == rows]
    return with_axes(trace, fitting[0]) if fitting else trace
