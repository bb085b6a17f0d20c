"""Listening to a model: a forward hook keeps the input, a hook on the output tensor receives the adjoint."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from autospec.capture.forward_hooks import Boundary, Call, ForwardHook, random_state
from autospec.capture.function_calls import FunctionCalls
from autospec.capture.layers import Layer, Use, WatchedModule, refuse_replaced
from autospec.capture.leaf_gradients import arrivals
from autospec.capture.piece_arrivals import PieceArrivals
from autospec.capture.row_owners import RowOwners, by_trace
from autospec.capture.rule_output import parts_of
from autospec.capture.rules.registry import LayerCall
from autospec.capture.run_again import is_running_again
from autospec.capture.trace import Part, Traced
from autospec.capture.trace_layout import adjoint_rows
from autospec.capture.trace_passes import Tracer
from autospec.capture.witnesses import witnesses
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import SampleGroups

Explained = list[tuple[Part, Use, GradientFactors]]


Sink = Callable[[Use, GradientFactors, RowOwners], None]


@dataclass(eq=False)
class Heard:
    """A call and the adjoints of one backward pass, waiting for that pass to reach the weight."""

    call: Call
    arrived: LayerCall
    explained: Explained | None = None


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

    Attributes:
        step: a module whose call is a whole training step, as a wrapper may redirect it.
    """

    def __init__(self, model: nn.Module, watched: Sequence[WatchedModule], sink: Sink) -> None:
        self._model = model
        self._functions = FunctionCalls(model, watched, self._attach_call, random_state, self.arrive)
        self._watched = [*watched, *witnesses(model, watched)]
        self._layers = list({use.layer.name: use.layer for entry in watched for use in entry.uses}.values())
        self._sink = sink
        self._pieces = PieceArrivals(self.arrive)
        self._handles: list[RemovableHandle] = []
        self.held: list[list[Node]] = []
        self.arrival_listener: ArrivalListener = ArrivalListener()
        self._listening = False
        self._samples: int | None = None
        self._depth = 0
        self._calls: list[Call] = []
        self._earlier: list[Call] = []
        self._outermost = 0
        self._lender: HookListener | None = None
        self._ordinals: Counter[tuple[int, str]] = Counter()
        self._waiting: dict[tuple[int, str], list[Heard]] = {}
        self._error: Exception | None = None
        self.tracer = Tracer(model)
        self.step: nn.Module | None = None
        self._stays = is_compiled(model)
        if self._stays:
            self._attach()

    def borrow_traces(self, lender: HookListener) -> None:
        """Take whose rows are from a listener to the same calls of another copy of the model; trace nothing."""
        self._lender = lender

    def _traced(self, call: Call) -> Traced | None:
        """What a call was traced to."""
        if self._lender is None:
            return call.traced
        if call.is_recomputed:
            return self._lender.tracer.recomputed
        return next((other.traced for other in self._lender._earlier if other.key == call.key), None)

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
            with arrivals(self._layers, self.arrive), _keeping_buffers(self._stays), functions:
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
            self._pieces.forget()
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
            hook = ForwardHook(self, watched)
            self._handles.append(watched.module.register_forward_hook(as_it_is(hook), with_kwargs=True))
            if any(use.layer.is_sharded for use in watched.uses):
                meet = self._pieces.meeting(watched, lambda: self.takes_calls)
                self._handles.append(watched.module.register_forward_pre_hook(meet, with_kwargs=True))
            if watched.rule.draws_random(watched.module):
                before = as_it_is(hook.before)
                self._handles.append(watched.module.register_forward_pre_hook(before, with_kwargs=True))
        plain = Boundary(self)
        for module in [self._model] if self._stays else self._model.modules():
            boundary = Boundary(self, is_step=True) if module is self.step else plain
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
        hook = ForwardHook(self, watched)
        hook.random_state = dict(random_before)
        hook(module, inputs, dict(keywords), output)

    @property
    def is_listening(self) -> bool:
        """Whether a batch is open."""
        return self._listening

    # --- forward ---------------------------------------------------------------------------------------------------

    @property
    def takes_calls(self) -> bool:
        """Whether a module's call is of interest now."""
        is_quiet = _is_transformed() or is_running_again()
        return self._listening and torch.is_grad_enabled() and not is_quiet

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
        if self._lender is not None or not (self.takes_calls and calls and self._samples):
            self._release(calls)
            return
        self._outermost += 1
        for call in calls:
            call.outermost = self._outermost
        with torch._C.DisableTorchFunction():  # what repeats a batch's functions elsewhere must not repeat these
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
        heard = Heard(call, arrived)
        for use in call.watched.uses:
            waiting = self._waiting.setdefault((task, use.layer.name), [])
            if heard not in waiting:
                waiting.append(heard)

    def _forget(self, task: int) -> None:
        """Drop what a backward pass left that did not reach its weight."""
        for key in [key for key in self._waiting if key[0] == task]:
            del self._waiting[key]

    def arrive(self, layer: Layer, gradient: Tensor) -> None:
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
        traced = self._traced(call)
        if traced is None or traced.refusal or part not in traced.parts:
            reason = traced.refusal if traced else ""
            raise AutoSpecError(
                f"layer {use.name!r} "
                + (reason or "was called where its rows cannot be traced to samples (outside the model's own call)")
            )
        return by_trace(traced.parts[part], use, factors, self._samples)


def _is_transformed() -> bool:
    """Whether a function transform (vmap, grad) runs: its tensors have no adjoints of their own."""
    return torch._C._functorch.peek_interpreter_stack() is not None


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
