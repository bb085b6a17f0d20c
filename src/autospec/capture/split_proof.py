"""Proof that a model may run group by group: a split pass is compared with an unsplit one, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from autospec.capture.agreement import (
    FAILURES,
    WITHIN_NETWORK,
    Unsplittable,
    autocast_eps,
    buffers_kept,
    cut_off,
    difference,
    float64_twin,
    in_float64,
    leaf_copies,
    other_parameters,
    random_state_kept,
    seeds_of,
    tolerance_of,
    trained,
    weight_gradients,
    without_dropout,
)
from autospec.capture.batch_layout import BatchLayout, input_layouts
from autospec.capture.steady_rows import has_steady_rows
from autospec.capture.trace_graph import backward_graph
from autospec.errors import AutoSpecError
from autospec.spectra.groups import SampleGroups

if TYPE_CHECKING:
    from autospec.capture.per_group import PerGroupEngine


def prove_split(
    engine: PerGroupEngine,
    module: nn.Module,
    forward: Callable[..., Any],
    leaves: Sequence[Any],
    spec: TreeSpec,
    cells: SampleGroups,
) -> BatchLayout:
    """Where the samples lie in a call, shown by a split pass that agrees with an unsplit one; dropout is off.

    Random state, buffers and gradients stay as they were. Where rounding in float32 hides it, both are run in float64.
    Raises AutoSpecError where no layout makes them agree.
    """
    leaves = cut_off(list(leaves))
    _refuse_changed_buffers(engine, forward, leaves, spec)
    try:
        return _proved(engine, module, forward, leaves, spec, cells)
    except Unsplittable as error:
        twin = None if autocast_eps(engine.model) else _twin(engine, module, leaves)
        if twin is None:
            raise
        try:
            return _proved(*twin, spec, cells)
        except AutoSpecError:
            raise
        except FAILURES:  # a model that does not compute in float64
            raise error from None


def _proved(
    engine: PerGroupEngine,
    module: nn.Module,
    forward: Callable[..., Any],
    leaves: Sequence[Any],
    spec: TreeSpec,
    cells: SampleGroups,
) -> BatchLayout:
    inputs, keywords = tree_unflatten(list(leaves), spec)
    kept = engine.passes
    with random_state_kept(leaves), without_dropout(engine.model):
        whole, expected = _unsplit(engine, forward, inputs, keywords, len(cells.of_sample))
        nearest = ("the outputs", float("inf"))
        for layout in input_layouts(leaves, len(cells.of_sample)):
            with kept.aside():
                try:
                    shown, apart = _compared(engine, forward, leaves, spec, layout, cells, whole, expected)
                except AutoSpecError:
                    raise
                except FAILURES:
                    continue  # the module does not take such parts
            if apart is None:
                return shown
            nearest = min(nearest, apart, key=lambda found: found[1])
    what, by = nearest
    raise Unsplittable(
        f"engine={engine.name!r}: {what} of {type(module).__name__} run group by group differ from those of the whole "
        f"batch (by {by:.1e} of their norm): its samples depend on one another, or a loss inside it weighs them by "
        "more than their number; use engine='hooks'"
    )


def _unsplit(
    engine: PerGroupEngine, forward: Callable[..., Any], inputs: Any, keywords: Any, samples: int
) -> tuple[list[Any], list[Tensor | None]]:
    """The leaves of the output of an unsplit pass, and the gradients of the weights, by a full backward pass."""
    # on leaves of our own, so that nothing is added to the weights' gradients and no hook of theirs is called
    leaves = leaf_copies(engine.model)
    with other_parameters(engine.model, leaves):
        whole = tree_flatten(forward(*inputs, **keywords))[0]
        _refuse_random(engine, whole, tree_flatten(forward(*inputs, **keywords))[0])
        _refuse_reentrant(engine, trained(whole))
        if trained(whole):
            graph = backward_graph([get_gradient_edge(output).node for output in trained(whole)])
            engine.is_steady = engine.is_steady and has_steady_rows(graph, samples, engine.model)
            torch.autograd.backward(trained(whole), seeds_of(trained(whole)))
    return whole, [leaves[id(layer.parameter)].grad for layer in engine.layers]


def _refuse_reentrant(engine: PerGroupEngine, outputs: Sequence[Tensor]) -> None:
    """AutoSpecError for a checkpoint that runs again in backward, on the weights themselves."""
    met: set[Any] = set()
    waiting = [output.grad_fn for output in outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        met.add(node)
        if node.name() == "CheckpointFunctionBackward":
            raise Unsplittable(
                f"engine={engine.name!r} does not take checkpointing with use_reentrant=True; checkpoint with "
                "use_reentrant=False, or use engine='fast' or 'hooks'"
            )
        waiting += [source for source, _ in node.next_functions]


def _compared(
    engine: PerGroupEngine,
    forward: Callable[..., Any],
    leaves: Sequence[Any],
    spec: TreeSpec,
    layout: BatchLayout,
    cells: SampleGroups,
    whole: Sequence[Any],
    expected: Sequence[Tensor | None],
) -> tuple[BatchLayout, tuple[str, float] | None]:
    """The layout with the places of the outputs, and what differs by how much, None where nothing does."""
    dtype = next((leaf.dtype for leaf in whole if isinstance(leaf, Tensor) and leaf.is_floating_point()), torch.float32)
    near = tolerance_of(dtype, bool(autocast_eps(engine.model)))
    parts, _ = engine.parts(forward, leaves, spec, layout, cells)
    layout, apart = layout.explained(parts, whole, leaves, cells, near)
    if not apart <= near:
        return layout, ("the outputs", apart)
    joined = layout.joined(parts, leaves, cells, engine.pool)
    if joined is None:  # losses alike tell no shares apart; the gradients will
        layout = layout.by_nearest_share()
        joined = layout.joined(parts, leaves, cells, engine.pool)
    assert joined is not None
    weights = [layer.parameter for layer in engine.layers]
    summed = weight_gradients(trained(joined), weights)
    norms = [float(torch.linalg.vector_norm(gradient)) for gradient in expected if gradient is not None]
    at_least = WITHIN_NETWORK * max(norms, default=0.0)
    for layer, ours, theirs in zip(engine.layers, summed, expected, strict=True):
        if ours is None and theirs is None:
            continue
        zeros = torch.zeros_like(layer.parameter)
        apart = difference(zeros if ours is None else ours, zeros if theirs is None else theirs, at_least)
        if not apart <= near:
            return layout, (f"layer {layer.name!r}", apart)
    return layout, None


def _refuse_random(engine: PerGroupEngine, whole: Sequence[Any], again: Sequence[Any]) -> None:
    """AutoSpecError where two passes over the same batch differ: they draw random numbers, and prove nothing."""
    for one, other in zip(whole, again, strict=True):
        if isinstance(one, Tensor) and not difference(one, other) <= tolerance_of(one.dtype):
            raise Unsplittable(
                f"engine={engine.name!r}: two passes of {type(engine.model).__name__} over the same batch differ, so "
                "it draws random numbers beside dropout, and a split pass cannot be compared with an unsplit one; "
                "use engine='fast' or 'hooks', which do not split it"
            )


def _refuse_changed_buffers(
    engine: PerGroupEngine, forward: Callable[..., Any], leaves: Sequence[Any], spec: TreeSpec
) -> None:
    """AutoSpecError for a model that changes a buffer at each pass: once per group would train another network."""
    inputs, keywords = tree_unflatten(list(leaves), spec)
    if not any(True for _ in engine.model.buffers()):
        return
    with random_state_kept(leaves), torch.no_grad(), buffers_kept(engine.model) as changed:
        forward(*inputs, **keywords)
    if changed:
        raise Unsplittable(
            f"engine={engine.name!r}: {type(engine.model).__name__} changes its buffer {changed[0]!r} at each forward "
            "pass, and would once per group; use engine='fast' or 'hooks'"
        )


def _twin(
    engine: PerGroupEngine, module: nn.Module, leaves: Sequence[Any]
) -> tuple[PerGroupEngine, nn.Module, Callable[..., Any], list[Any]] | None:
    """The engine, the module, its forward and its arguments in float64; None where there is no such copy."""
    if all(parameter.dtype == torch.float64 for parameter in engine.model.parameters()):
        return None
    name = next(name for name, other in engine.model.named_modules() if other is module)
    twin = float64_twin(engine.model)
    if twin is None:
        return None
    of_twin = engine.of_twin(twin)
    part = twin.get_submodule(name)
    return of_twin, part, part.forward, [in_float64(leaf) for leaf in leaves]
