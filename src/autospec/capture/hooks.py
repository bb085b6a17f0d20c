"""Listening to a model: a forward hook keeps the input, a hook on the output tensor receives the adjoint."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.hooks import RemovableHandle

from autospec.capture.function_calls import FunctionCalls
from autospec.capture.layers import Layer, Use, WatchedModule, refuse_replaced
from autospec.capture.leaf_gradients import arrivals
from autospec.capture.rule_output import parts_of
from autospec.capture.rules.registry import LayerCall
from autospec.capture.trace import Part, Traced
from autospec.capture.trace_layout import NOBODY, NOT_REACHED, SHARED, RowTrace, adjoint_rows, by_sample
from autospec.capture.trace_passes import Tracer
from autospec.capture.weights import Weight, weights_of
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import SampleGroups

Explained = list[tuple[Part, Use, GradientFactors]]


@dataclass(frozen=True)
class RowOwners:
    """Whose the first dimension of some factors is.

    Attributes:
        samples: (first,) the sample of each index, -1 for one without a gradient; None where they are the samples.
        shared: whether several samples share rows, so that no group has a part of its own.
    """

    samples: Tensor | None = None
    shared: bool = False


Sink = Callable[[Use, GradientFactors, RowOwners], None]


class ArrivalListener:
    """Is told of every gradient that reaches a watched weight; a recorder's checks are one."""

    def entered(self, inputs: Any) -> None:
        """Called with what the model is called with."""

    def passed(self, keeps_graph: bool) -> None:
        """Called when a backward pass reaches a layer; ``keeps_graph`` says whether it can itself be derived."""

    def before(self, layer: Layer) -> None:
        """Called before the factors of a gradient are handed on."""

    def after(self, layer: Layer, gradient: Tensor, parts: Sequence[GradientFactors]) -> None:
        """Called after it, with the gradient itself."""


class HookListener:
    """Hands the factors of every watched weight to a sink while listening; leaves no hook behind.

    Factors are of one backward pass and are handed on when that same pass reaches the weight. Nothing is kept on the
    modules, and a pass without a backward is forgotten with its graph. A compiled model runs only hooks that were
    there at its first call, so there they stay until ``close``.
    """

    def __init__(self, model: nn.Module, watched: Sequence[WatchedModule], sink: Sink) -> None:
        self._model = model
        self._functions = FunctionCalls(model, watched, self._attach_call, random_state, self._arrive)
        self._watched = [*watched, *witnesses(model, watched)]
        self._layers = list({use.layer.name: use.layer for entry in watched for use in entry.uses}.values())
        self._sink = sink
        self._handles: list[RemovableHandle] = []
        self.held: list[list[Node]] = []
        self.arrival_listener: ArrivalListener = ArrivalListener()
        self._listening = False
        self._samples: int | None = None
        self._depth = 0
        self._calls: list[Call] = []
        self._earlier: list[Call] = []
        self._outermost = 0
        self._ordinals: Counter[tuple[int, str]] = Counter()
        self._waiting: dict[tuple[int, str], list[_Heard]] = {}
        self._error: Exception | None = None
        self.tracer = Tracer(model)
        self._stays = is_compiled(model)
        if self._stays:
            self._attach()

    @contextlib.contextmanager
    def listening(self, groups: SampleGroups | None = None) -> Iterator[None]:
        """A context in which backward passes hand over their factors.

        Args:
            groups: the groups of the batch, to whose samples rows are traced; None leaves rows as they come.
        """
        refuse_replaced(self._model, [entry for entry in self._watched if not entry.is_witness])
        if not self._handles:
            self._attach()
        self._listening, self._error = True, None
        self._samples = None if groups is None else len(groups.of_sample)
        try:
            functions = contextlib.nullcontext() if self._stays else self._functions.watching()
            with arrivals(self._layers, self._arrive), _keeping_buffers(self._stays), functions:
                yield
            if self._error is not None:
                raise self._error
        except BaseException as error:
            self.close()
            if self._error is not None and isinstance(error, AutoSpecError):
                raise self._error from None  # it came first
            raise
        finally:
            self._listening = False
            self._depth = 0
            self._release([*self._calls, *self._earlier])
            self._calls.clear()
            self._earlier.clear()
            self._ordinals.clear()
            self._waiting.clear()
            while self.held:
                self.held.pop().clear()
            if not self._stays:
                self.close()

    def close(self) -> None:
        """Take every hook off the model."""
        while self._handles:
            self._handles.pop().remove()

    def _attach(self) -> None:
        # a compiled model's graph breaks at a hook, which then runs as it is
        as_it_is: Callable[[Any], Any] = torch.compiler.disable if self._stays else lambda hook: hook
        for watched in self._watched:
            if watched.rule is None:
                continue
            hook = _ForwardHook(self, watched)
            self._handles.append(watched.module.register_forward_hook(as_it_is(hook), with_kwargs=True))
            if watched.rule.draws_random(watched.module):
                before = as_it_is(hook.before)
                self._handles.append(watched.module.register_forward_pre_hook(before, with_kwargs=True))
        boundary = _Boundary(self)
        for module in [self._model] if self._stays else self._model.modules():
            self._handles.append(module.register_forward_pre_hook(as_it_is(boundary.enter), with_kwargs=True))
            self._handles.append(module.register_forward_hook(as_it_is(boundary.leave), always_call=True))

    def _attach_call(
        self,
        watched: WatchedModule,
        module: nn.Module,
        inputs: tuple[Any, ...],
        keywords: Mapping[str, Any],
        output: Any,
        random_before: Mapping[str, Tensor],
    ) -> None:
        """Wait for the adjoints of a function's call, as a module's forward hook does."""
        hook = _ForwardHook(self, watched)
        hook.random_state = dict(random_before)
        hook(module, inputs, dict(keywords), output)

    # --- forward ---------------------------------------------------------------------------------------------------

    @property
    def takes_calls(self) -> bool:
        """Whether a module's call is of interest now."""
        return self._listening and torch.is_grad_enabled() and not _is_transformed()

    def called(self, watched: WatchedModule) -> Call:
        """A new call of a watched module; those that a checkpoint makes inside a backward pass are traced with it."""
        task = torch._C._current_graph_task_id()
        ordinal = self._ordinals[(task, watched.name)]
        self._ordinals[(task, watched.name)] += 1
        call = Call(watched, (watched.name, ordinal, task >= 0))
        if task < 0:
            self._calls.append(call)
        else:
            call.traced = self.tracer.recomputed
        return call

    def entered(self, inputs: Any) -> None:
        """A module of the model is called."""
        if torch._C._current_graph_task_id() >= 0:
            return
        if not self._depth and self.takes_calls:
            self.arrival_listener.entered(inputs)
        self._depth += 1

    def left(self, output: Any) -> None:
        """A call of a module is over; after that of the outermost one, rows are traced."""
        if torch._C._current_graph_task_id() >= 0:
            return
        self._depth = max(self._depth - 1, 0)
        if self._depth:
            return
        calls, self._calls = self._calls, []
        if not (self.takes_calls and calls and self._samples):
            self._release(calls)
            return
        self._outermost += 1
        for call in calls:
            call.outermost = self._outermost
        is_new = self.tracer.trace(calls, output, self._samples, self._earlier)
        for call in calls:
            call.output = None  # what a layer gives must not outlive its backward pass
            if not is_new:
                call.kept.clear()
        self._earlier += calls

    @staticmethod
    def _release(calls: Sequence[Call]) -> None:
        """Let go of the graph, which the hooks on it must not hold."""
        for call in calls:
            call.edges, call.output = [], None
            call.kept.clear()

    # --- backward --------------------------------------------------------------------------------------------------

    def receive(self, call: Call, arrived: LayerCall) -> None:
        """Take the adjoints of one call: to trace its rows, or to hand its factors on once its weight is reached."""
        if call.watched.is_witness and not self.tracer.is_tracing:
            call.kept.clear()
            return
        if self.tracer.is_tracing:
            try:
                explained = self._explain(call, arrived)
            except AutoSpecError:
                if not call.watched.is_witness:
                    raise
                return
            self.tracer.collect((part, adjoint_rows(factors)) for part, _, factors in explained)
            return
        if not self._listening:
            raise AutoSpecError(
                f"layer {call.watched.name!r}: backward ran outside the recorder.batch(...) in which its forward "
                "pass ran"
            )
        for earlier in self._earlier:
            earlier.kept.clear()  # the loss is known: nothing is traced from here on
        task = torch._C._current_graph_task_id()
        if not any(of_task == task for of_task, _ in self._waiting):
            torch.autograd.Variable._execution_engine.queue_callback(lambda: self._forget(task))
        self.arrival_listener.passed(torch.is_grad_enabled())
        heard = _Heard(call, arrived)
        for use in call.watched.uses:
            waiting = self._waiting.setdefault((task, use.layer.name), [])
            if heard not in waiting:
                waiting.append(heard)

    def _forget(self, task: int) -> None:
        """Drop what a backward pass left that did not reach its weight."""
        for key in [key for key in self._waiting if key[0] == task]:
            del self._waiting[key]

    def _arrive(self, layer: Layer, gradient: Tensor) -> None:
        """Hand on the factors that belong to a gradient which is about to be added to a weight's."""
        if self.tracer.is_tracing or self._error is not None:
            return
        try:
            self._hand_on(layer, gradient)
        except Exception as error:  # noqa: BLE001 (raised when the batch ends)
            # what is raised inside a node's hook keeps the whole graph alive, in torch
            self._error = error.with_traceback(None)

    def _hand_on(self, layer: Layer, gradient: Tensor) -> None:
        waiting = self._waiting.pop((torch._C._current_graph_task_id(), layer.name), [])
        with torch.no_grad(), _full_precision(gradient.device):
            self.arrival_listener.before(layer)
            handed = []
            for heard in waiting:
                if heard.explained is None:
                    heard.explained = self._explain(heard.call, heard.arrived)
                for part, use, factors in heard.explained:
                    if use.layer is layer:
                        laid_out, owners = self._laid_out(heard.call, part, use, factors)
                        self._sink(use, laid_out, owners)
                        handed.append(laid_out)
            self.arrival_listener.after(layer, gradient.detach(), handed)

    def _explain(self, call: Call, arrived: LayerCall) -> Explained:
        """What a layer rule makes of one call."""
        watched = call.watched
        with torch.no_grad(), _full_precision(arrived.output[0].device), _naming(watched):
            assert watched.rule is not None
            factors = watched.rule.explain(watched.module, arrived)
            spacing = max(torch.finfo(adjoint.dtype).eps for adjoint in arrived.adjoints if adjoint is not None)
            return [
                ((call.key, use.name, place), use, part.rounded_to(spacing))
                for use in watched.uses
                if use.layer.is_trained or watched.is_witness
                for place, part in enumerate(parts_of(factors, use))
            ]

    def _laid_out(
        self, call: Call, part: Part, use: Use, factors: GradientFactors
    ) -> tuple[GradientFactors, RowOwners]:
        """The factors with one sample for each index of their first dimension, and which."""
        if self._samples is None:
            return factors, RowOwners()
        if self._samples == 1:
            return factors, RowOwners(torch.zeros(factors.samples, dtype=torch.int64, device=factors.device))
        traced = call.traced
        if traced is None or traced.refusal or part not in traced.parts:
            reason = traced.refusal if traced else ""
            raise AutoSpecError(
                f"layer {use.name!r} "
                + (reason or "was called where its rows cannot be traced to samples (outside the model's own call)")
            )
        return _by_trace(traced.parts[part], use, factors, self._samples)


def witnesses(model: nn.Module, watched: Sequence[WatchedModule]) -> list[WatchedModule]:
    """Modules that are not recorded but whose rows may tell which dimension of the model's output is the sample."""
    there = {id(entry.module) for entry in watched}
    by_module: dict[int, list[Weight]] = {}
    for weight in weights_of(model):
        if weight.rule is not None and id(weight.module) not in there and not weight.rule.refuse(weight.module):
            by_module.setdefault(id(weight.module), []).append(weight)
    made = []
    for weights in by_module.values():
        name, module, rule = weights[0].module_name, weights[0].module, weights[0].rule
        uses = tuple(Use(w.name, Layer(w.name, w.parameter, type(module).__name__), w.local_name) for w in weights)
        assert rule is not None
        made.append(WatchedModule(f"witness {name}", module, rule, uses, is_witness=True))
    return made


def _by_trace(trace: RowTrace, use: Use, factors: GradientFactors, samples: int) -> tuple[GradientFactors, RowOwners]:
    if trace.how == SHARED:
        return factors, RowOwners(shared=True)
    rows = adjoint_rows(factors)
    if trace.how == NOT_REACHED:
        if bool((rows != 0).any()):
            raise AutoSpecError(
                f"layer {use.name!r}: its adjoint does not come through what the model returned, so that its rows "
                "cannot be traced to samples; return from the model's forward what the loss is computed from"
            )
        nobody = torch.full((factors.samples,), NOBODY, device=factors.device)
        return factors, RowOwners(None if factors.samples == samples else nobody)
    trace = _of_this_batch(trace, rows, samples, use)
    laid_out, owners = by_sample(factors, trace)
    return laid_out, RowOwners(owners)


def _of_this_batch(trace: RowTrace, rows: Tensor, samples: int, use: Use) -> RowTrace:
    """The trace at the lengths of this batch; AutoSpecError where it says nothing of them."""
    first, positions = rows.shape[:2]
    if trace.layout is not None:
        layout = trace.layout.for_batch(samples, first, positions)
        if layout is not None:
            return RowTrace(trace.how, layout)
    elif trace.owners is not None and trace.owners.shape == rows.shape[:2]:
        if bool(((trace.owners == NOBODY)[..., None] & (rows != 0)).any()):
            raise AutoSpecError(
                f"layer {use.name!r}: rows have a gradient that does not come through what the model returned; return "
                "from the model's forward what the loss is computed from"
            )
        return trace
    raise AutoSpecError(
        f"layer {use.name!r}: its rows ({first} x {positions}) are not those of the pass in which they were traced"
    )


class Call:
    """One call of a watched module in a forward pass.

    Attributes:
        watched: the module.
        key: its name, which of its calls this is, and whether it was made again inside a backward pass.
        edges: where the adjoints of its outputs arrive in the graph.
        output: its main output, kept while the outermost module runs.
        shape: the shape of it.
        traced: whose its rows are, known when the outermost module has returned.
        kept: what a witness was called with, to be cleared.
        outermost: in which call of an outermost module of this batch it was made.
    """

    def __init__(self, watched: WatchedModule, key: tuple[str, int, bool]) -> None:
        self.watched = watched
        self.key = key
        self.edges: list[GradientEdge] = []
        self.output: Tensor | None = None
        self.shape: tuple[int, ...] = ()
        self.traced: Traced | None = None
        self.outermost = 0
        self.kept: list[Any] = []

    @property
    def is_recomputed(self) -> bool:
        return self.key[2]


@dataclass(eq=False)
class _Heard:
    """A call and the adjoints of one backward pass, waiting for that pass to reach the weight."""

    call: Call
    arrived: LayerCall
    explained: Explained | None = None


class _Boundary:
    """Hooks that notice where a call of the model, or of a part of it, begins and ends."""

    def __init__(self, listener: HookListener) -> None:
        self._listener = listener

    def enter(self, module: nn.Module, inputs: Any, keywords: Any) -> None:
        self._listener.entered((inputs, keywords))

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._listener.left(output)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Boundary:
        return _Boundary(_Deaf())


class _ForwardHook:
    """The hooks of one module's forward: they keep the call, and wait for the adjoints of its output."""

    def __init__(self, listener: HookListener, watched: WatchedModule) -> None:
        self._listener = listener
        self._watched = watched
        self.random_state: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _ForwardHook:
        """A copy of the model made inside a batch is another model, which nobody listens to."""
        return _ForwardHook(_Deaf(), WatchedModule(self._watched.name, nn.Identity(), self._watched.rule))

    def before(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Keep the random state in which the call begins."""
        if self._listener.takes_calls and module.training:
            self.random_state = random_state((inputs, keywords))

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        if not self._listener.takes_calls:
            return
        tensors = tuple(leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor))
        awaited = [tensor for tensor in tensors if tensor.requires_grad]
        trains = any(use.layer.parameter.requires_grad for use in self._watched.uses)
        if not awaited or not (trains or self._watched.is_witness):
            return
        kept_inputs, kept_keywords = tree_map(_detached, inputs), tree_map(_detached, keywords)
        versions = [leaf._version for leaf in _tensors((kept_inputs, kept_keywords))]
        kept_output = tuple(tensor.detach() for tensor in tensors)
        random_before, self.random_state = self.random_state, {}
        training = module.training
        places, outputs = [i for i, tensor in enumerate(tensors) if tensor.requires_grad], len(tensors)
        call = self._listener.called(self._watched)
        listener, watched = self._listener, self._watched

        held = [(kept_inputs, kept_keywords, kept_output)]
        if watched.is_witness:
            call.kept = held  # let go of once rows are traced
        del kept_inputs, kept_keywords, kept_output

        def receive(adjoints: Sequence[Tensor | None]) -> None:
            if not held:
                return
            kept_inputs, kept_keywords, kept_output = held[0]
            if [leaf._version for leaf in _tensors((kept_inputs, kept_keywords))] != versions:
                raise AutoSpecError(
                    f"layer {watched.name!r}: its input was changed in place before backward, so the activation is "
                    "lost; change a copy instead"
                )
            placed: list[Tensor | None] = [None] * outputs
            for place, adjoint in zip(places, adjoints, strict=True):
                placed[place] = None if adjoint is None else adjoint.detach()
            arrived = LayerCall(kept_inputs, kept_keywords, kept_output, tuple(placed), random_before, training)
            listener.receive(call, arrived)

        nodes, edges = _on_adjoints(awaited, receive)
        self._listener.held.append(nodes)
        if not call.is_recomputed:
            call.edges, call.output, call.shape = edges, awaited[0], tuple(awaited[0].shape)


class _Deaf(HookListener):
    """What the hooks of a copied model call: nothing is taken."""

    def __init__(self) -> None:
        self.held = []
        self._listening = False

    def entered(self, inputs: Any) -> None:
        """Nothing."""

    def left(self, output: Any) -> None:
        """Nothing."""


def _on_adjoints(
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
    """The tensor to wait at for the adjoint of a layer's output, and how the one is had from the other.

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


def _is_transformed() -> bool:
    """Whether a function transform (vmap, grad) runs: its tensors have no adjoints of their own."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def random_state(tree: Any) -> dict[str, Tensor]:
    """The random state of the CPU and of every CUDA device that a call's arguments are on; only read."""
    devices = sorted({str(leaf.device) for leaf in _tensors(tree) if leaf.is_cuda})
    return {"cpu": torch.get_rng_state()} | {device: torch.cuda.get_rng_state(device) for device in devices}


def is_compiled(model: nn.Module) -> bool:
    """Whether a model, or a part of it, runs through torch.compile."""
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def _keeping_buffers(compiled: bool) -> contextlib.AbstractContextManager[object]:
    """A context in which what torch.compile compiles can be run backwards more than once, as tracing does."""
    if not compiled:
        return contextlib.nullcontext()
    import torch._functorch.config

    return torch._functorch.config.patch(donated_buffer=False)


def _full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A context without autocast, which a backward pass inside of it would otherwise hand on to our products."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


@contextlib.contextmanager
def _naming(watched: WatchedModule) -> Iterator[None]:
    """Errors of a layer rule, with the layer's name in front."""
    try:
        yield
    except (AutoSpecError, ValueError, IndexError, RuntimeError) as error:
        raise AutoSpecError(f"layer {watched.name!r} ({type(watched.module).__name__}): {error}") from error


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]
