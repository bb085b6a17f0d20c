"""The fused engine: the groups' products are the weight's gradient, and the model runs once, unsplit.

It takes what couples samples (a group's part is then what comes through the group's rows) and losses inside the model.
Layers that cannot be fused are heard by hooks. Whose rows a layer sees is traced on the first batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from autospec.capture.agreement import (
    WITHIN_NETWORK,
    Unsplittable,
    autocast_eps,
    cut_off,
    difference,
    random_state_kept,
    tolerance_of,
    trained,
    weight_gradients,
)
from autospec.capture.batch_layout import cell_by_cell
from autospec.capture.fused_layers import Product, fused_forward, sample_dimension
from autospec.capture.hooks import HookListener, is_compiled
from autospec.capture.kept_state import state_kept
from autospec.capture.layers import Layer, Use, WatchedModule
from autospec.capture.memory import Pool, Scratch
from autospec.capture.part_order import PartOrder
from autospec.capture.per_group import Forward, GroupGradients, entries, standing_in, stands_in
from autospec.capture.proved_again import TRACE_PASSES, has_diverged, is_due
from autospec.capture.row_owners import RowOwners
from autospec.capture.trace_layout import NOT_REACHED, SAMPLE_FIRST
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import Rows, SampleGroups


class FusedEngine:
    """Runs some layers with forward functions of its own inside a batch, and hands over their groups' gradients.

    Raises AutoSpecError where the rows of a layer cannot be traced to the samples of the batch: on the first batch and
    on every ``check_every``-th (None: so many that it costs 1 %, and the 2nd, 4th, 8th, ... where values could move
    rows), and where modules are in another mode.
    """

    name = "fused"

    def __init__(
        self,
        model: nn.Module,
        watched: Sequence[WatchedModule],
        take: GroupGradients,
        check_every: int | None = None,
    ) -> None:
        if is_compiled(model):
            raise Unsplittable("engine='fused' does not take compiled models; use engine='hooks'")
        computed = [use.layer.name for entry in watched for use in entry.uses if use.layer.computed]
        if computed:
            raise Unsplittable(
                f"engine='fused': the weight of layer {computed[0]!r} is computed from parameters; use engine='hooks'"
            )
        self.model = model
        self.layers = list({use.layer.name: use.layer for module in watched for use in module.uses}.values())
        self._take = take
        self._check_every = check_every
        self._batches = 0
        self._order = PartOrder(self.name)
        self._forwards: dict[nn.Module, Forward] = {}
        self._watched = watched
        heard = [entry for entry in watched if not self._fuse(entry)]
        of_fused = [use for entry in watched if entry not in heard for use in entry.uses]
        self._fused, self._fused_layers = {use.name for use in of_fused}, {use.layer.name for use in of_fused}
        self._listener = HookListener(model, heard, self._hear) if heard else None
        self._entries = entries(model, {id(layer.parameter) for layer in self.layers})
        self._dimensions: dict[str, int | None] = {}
        self.unreached: list[str] = []
        self._modules = {entry.name: entry.module for entry in watched}
        self._is_traced = False
        self._is_steady = True
        self._parts = list(model.modules())
        self._modes: list[bool] = []
        self._proved: set[nn.Module] = set()
        self._inside = self._is_plain = False
        self.cells: SampleGroups | None = None
        self.rows: list[Rows | None] = []
        self.arrived: dict[str, Tensor] = {}
        self.eps: dict[str, float] = {}
        self.scratch = Scratch(), Scratch()
        self.pool = Pool()

    def _fuse(self, watched: WatchedModule) -> bool:
        """Give a module a forward of ours, where there is one for it."""
        makes = None if watched.rule is None else fused_forward(watched.module)
        names = {use.local_name: use for use in watched.uses}
        parameters = watched.module._parameters
        if makes is None or any(parameters.get(name) is not use.layer.parameter for name, use in names.items()):
            return False
        products = {
            name: WeightProducts(self, watched.name, names.get(name), parameter)
            for name, parameter in parameters.items()
            if parameter is not None and "weight" in name
        }
        self._forwards[watched.module] = makes(watched.module, products)
        return True

    @contextlib.contextmanager
    def listening(self, cells: SampleGroups) -> Iterator[None]:
        """A context in which backward leaves the groups' gradients; they are handed over at its end."""
        is_one = len(cells.of_sample) == 1  # a single sample shows nothing
        before, self._modes = self._modes, [part.training for part in self._parts]
        is_steady = self._is_steady and not self._order.has_parts
        due = before != self._modes or is_due(self._batches + 1, TRACE_PASSES, is_steady, self._check_every)
        if due and not is_one and not has_diverged(self.model):
            self._is_traced = False
        self._order.begin(len(cells.of_sample), not self._is_traced)
        untraced = [] if self._is_traced else self._entries
        with self.running(cells), self._order:
            tracing = standing_in(untraced, lambda module, forward: self._trace_first(module, forward, cells))
            with tracing, self._hearing(cells):
                yield
            self.hand_over()
            self._is_traced = True
            self._proved.clear()
            self._batches += 1

    @contextlib.contextmanager
    def trying(self, cells: SampleGroups) -> Iterator[None]:
        """A context for passes whose gradients nobody takes, through ``prove`` and ``forward_of``.

        They cost what a recorded pass does: hooks work at what arrives at a weight, and ``autograd.grad`` adds nothing.
        """
        heard = [] if self._listener is None else [one for one in self.layers if one.name not in self._fused_layers]
        with self.running(cells), self._hearing(cells), contextlib.ExitStack() as shown:
            for layer in heard:
                shown.enter_context(self._listener_told(layer))
            yield

    @contextlib.contextmanager
    def _listener_told(self, layer: Layer) -> Iterator[None]:
        """A context in which our listener is told of a weight's gradients though they are not added to it."""
        weight, listener = layer.parameter, self._listener
        if listener is None or not weight.requires_grad:
            yield
            return
        before = weight._backward_hooks
        handle = weight.register_hook(lambda gradient: listener.arrive(layer, gradient))
        try:
            yield
        finally:
            handle.remove()
            if not before:
                weight._backward_hooks = None  # as if there had been none

    @contextlib.contextmanager
    def running(self, cells: SampleGroups) -> Iterator[None]:
        """A context in which the layers run with our forward functions."""
        before = self.cells, self.rows, self.arrived, self.eps
        self.cells, self.rows, self.arrived, self.eps = cells, cells.rows, {}, {}
        try:
            with standing_in(list(self._forwards), self._stand_in):
                yield
        finally:
            self.cells, self.rows, self.arrived, self.eps = before

    def _hearing(self, cells: SampleGroups) -> contextlib.AbstractContextManager[None]:
        """A context in which the layers that are not fused are heard by hooks."""
        # rows come as they are: they were proved to be the samples, in order
        return contextlib.nullcontext() if self._listener is None else self._listener.listening(None)

    def hand_over(self) -> None:
        """Give every layer's gradients to the recorder."""
        for layer in self.layers:
            if layer.name in self.arrived:
                self._take(layer, self.arrived[layer.name].flatten(2), self.eps[layer.name])

    def close(self) -> None:
        """Nothing is left on the model between batches."""
        if self._listener is not None:
            self._listener.close()

    def _stand_in(self, module: nn.Module, forward: Forward) -> Forward:
        fused = self._forwards[module]

        @stands_in
        def stand_in(*inputs: Any, **keywords: Any) -> Any:
            return (fused if torch.is_grad_enabled() and not self._is_plain else forward)(*inputs, **keywords)

        return stand_in

    def _trace_first(self, module: nn.Module, forward: Forward, cells: SampleGroups) -> Forward:
        @stands_in
        def stand_in(*inputs: Any, **keywords: Any) -> Any:
            # what the outermost call reaches is traced with it, also what a checkpoint runs again in a backward pass
            is_again = torch._C._current_graph_task_id() >= 0
            if self._inside or is_again or not torch.is_grad_enabled():
                return forward(*inputs, **keywords)
            self._inside = True
            try:
                self._order.entered(type(module).__name__, (inputs, keywords))
                if module in self._proved:  # in a trial, of this very call
                    self._proved.remove(module)
                else:
                    self.trace_rows(module, (inputs, keywords), cells)
                output = forward(*inputs, **keywords)
                self._order.left(output)
                return output
            finally:
                self._inside = False

        return stand_in

    def forward_of(self, module: nn.Module) -> Forward:
        """The forward of a module, inside ``trying``, where its layers are fused already."""
        return module.forward

    def prove(self, module: nn.Module, arguments: Any, cells: SampleGroups) -> None:
        """Trace the rows of every layer that a call reaches, and hold the sums against its weights' gradients.

        AutoSpecError where one fails: a weight that is used outside its module too has a gradient that no product
        gives.
        """
        self._inside = True
        try:
            self.trace_rows(module, arguments, cells)
            self._check_sums(module, arguments)
            self._proved = {module}
        finally:
            self._inside = False

    def _check_sums(self, module: nn.Module, arguments: Any) -> None:
        fused = [layer for layer in self.layers if layer.is_trained and layer.name in self._fused_layers]
        inputs, keywords = cut_off(arguments)
        gradients = weight_gradients(trained(module(*inputs, **keywords)), [layer.parameter for layer in fused])
        norms = [float(gradient.detach().norm()) for gradient in gradients if gradient is not None]
        least = WITHIN_NETWORK * max(norms, default=0.0)  # before a norm layer a gradient may be rounding alone
        for layer, gradient in zip(fused, gradients, strict=True):
            if gradient is None:
                continue
            parts = self.arrived.get(layer.name)
            total = torch.zeros_like(gradient) if parts is None else parts.sum(0).to(gradient.dtype)
            if difference(total, gradient, least) > tolerance_of(gradient.dtype, bool(autocast_eps(self.model))):
                raise Unsplittable(
                    f"engine='fused': the weight of layer {layer.name!r} is used outside its module as well, or "
                    "changed before its module uses it; use engine='per_group'"
                )

    def trace_rows(self, module: nn.Module, arguments: Any, cells: SampleGroups) -> None:
        """Trace the rows of every layer to their samples; AutoSpecError where that fails. Nothing of it remains."""
        if len(cells.of_sample) < 2:
            raise Unsplittable(
                "engine='fused': the first batch holds one sample, which does not show whose a layer's rows are; "
                "begin with a batch of at least two, or use engine='hooks'"
            )
        inputs, keywords = cut_off(arguments)
        listener = HookListener(self.model, self._watched, _discard)
        self._is_plain = True
        try:
            with random_state_kept(tree_flatten(arguments)[0]), state_kept(self.model), listener.listening(cells):
                module(*inputs, **keywords)
        finally:
            self._is_plain = False
        traced = listener.tracer.last
        if traced is None or traced.refusal:
            raise Unsplittable(f"engine='fused': {traced.refusal if traced else 'no layer was called'}")
        found: dict[str, set[int | None]] = {}
        for (call, name, _), trace in traced.parts.items():
            straight = trace.how == SAMPLE_FIRST or (trace.layout is not None and name in self._fused)
            if trace.how != NOT_REACHED and not straight:
                raise Unsplittable(f"engine='fused': the rows of layer {name!r} are {trace.how}; use engine='hooks'")
            if trace.layout is not None and name in self._fused:
                layer = self._modules[call[0]]
                found.setdefault(name, set()).add(sample_dimension(layer, trace, traced.shapes.get(call, ())))
        if not listener.tracer.follows_from_shapes:
            raise Unsplittable(
                "engine='fused': whose a layer's rows are may depend on data in this model, or shows only in part; "
                "use engine='hooks'"
            )
        for name, dimensions in found.items():
            if len(dimensions) > 1 or None in dimensions:
                raise Unsplittable(
                    f"engine='fused': the rows of layer {name!r} could not be traced to the samples of the batch, one "
                    f"by one and in order; use engine='hooks' or leave it out with layers=['!{name}']"
                )
            self._dimensions[name] = dimensions.pop()
        reached = {name for (_, name, _), trace in traced.parts.items() if trace.how != NOT_REACHED}
        names = [use.name for entry in self._watched for use in entry.uses if use.layer.is_trained]
        self.unreached = [name for name in names if name not in reached]
        self._is_steady = self._is_steady and listener.tracer.is_steady

    def _hear(self, use: Use, factors: GradientFactors, owners: RowOwners) -> None:
        if self.cells is not None:
            precise = torch.promote_types(factors.dtype, torch.float32)
            layer = use.layer
            parts = torch.zeros((len(self.rows), *layer.shape), dtype=precise, device=factors.device)
            rows = slice(factors.first_row, factors.first_row + factors.height)
            for part, samples in zip(parts, self.cells.samples, strict=True):
                if len(samples):
                    part[rows] = factors.product(samples)
            self.add(layer, parts.view(-1, *layer.parameter.shape), factors.eps)

    def dimension_of(self, use: Use) -> int | None:
        """Which dimension of both sides of a use's products holds the samples, as it was traced."""
        return self._dimensions.get(use.name)

    def add(self, layer: Layer, parts: Tensor, eps: float) -> None:
        """Add the groups' parts, (cells, out, ...), from one use of a layer's weight; ``eps``: of their numbers."""
        before = self.arrived.get(layer.name)
        self.arrived[layer.name] = parts if before is None else before + parts
        self.eps[layer.name] = max(self.eps.get(layer.name, 0.0), eps)


def _discard(use: Use, factors: GradientFactors, owners: RowOwners) -> None:
    """What a trace hears is not recorded."""


class WeightProducts:
    """Takes the two sides of one weight's gradient in one module, and computes it group by group.

    ``use`` is None for a weight that is not recorded.
    """

    def __init__(self, engine: FusedEngine, module: str, use: Use | None, parameter: Tensor) -> None:
        self._engine = engine
        self._parameter = parameter
        self.name = use.name if use is not None else module
        self.use = use

    def gradient(self, rows: Tensor, adjoint: Tensor, product: Product) -> Tensor:
        """The weight's gradient, (out, ...): the sum over the groups, whose parts are kept."""
        engine = self._engine
        if self.use is None:
            whole = torch.empty_like(self._parameter)
            product(rows, adjoint, whole)
            return whole
        if engine.cells is None:
            raise AutoSpecError(
                f"layer {self.name!r}: backward ran outside the recorder.batch(...) in which its forward pass ran"
            )
        samples, dimension = len(engine.cells.of_sample), engine.dimension_of(self.use)
        if dimension is None or adjoint.shape[dimension] != samples:
            raise AutoSpecError(
                f"engine='fused': layer {self.name!r} got an output of shape {tuple(adjoint.shape)} in a batch of "
                f"{samples} samples, otherwise than on the first batch; use engine='hooks'"
            )
        return self._summed(rows, adjoint, product, dimension)

    def _summed(self, rows: Tensor, adjoint: Tensor, product: Product, dimension: int) -> Tensor:
        engine = self._engine
        assert self.use is not None
        assert engine.cells is not None
        layer = self.use.layer
        precise = torch.promote_types(adjoint.dtype, torch.float32)
        parts = engine.pool.empty((len(engine.rows), *layer.parameter.shape), adjoint.new_empty(0, dtype=precise))
        sides = [
            cell_by_cell(side, dimension, engine.cells, scratch)
            for side, scratch in zip((rows, adjoint), engine.scratch, strict=True)
        ]
        for part, of_cell in zip(parts, engine.rows, strict=True):
            if of_cell is None:
                part.zero_()
                continue
            product(next(sides[0]).to(precise), next(sides[1]).to(precise), part)
        engine.add(layer, parts, max(torch.finfo(side.dtype).eps for side in (rows, adjoint)))
        return parts.sum(0).to(adjoint.dtype)
