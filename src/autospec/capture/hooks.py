"""Listening to a model: a forward hook keeps the input, a hook on the output tensor receives the adjoint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.hooks import RemovableHandle

from autospec.capture.function_calls import FunctionCalls
from autospec.capture.layers import Use, WatchedModule, refuse_replaced
from autospec.capture.rule_output import parts_of
from autospec.capture.rules.registry import LayerCall
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import SampleGroups
from autospec.store.schema import layer_name

Sink = Callable[[Use, GradientFactors], None]


class HookListener:
    """Hands the factors of every watched weight to a sink while listening; leaves no hook behind.

    Nothing is kept on the modules, and a pass without a backward is forgotten with its graph. A compiled model
    runs only hooks that were there at its first call, so there they stay until ``close``.
    """

    def __init__(self, model: nn.Module, watched: Sequence[WatchedModule], sink: Sink) -> None:
        self._model, self._watched = model, watched
        self._functions = FunctionCalls(model, watched, self._attach_call, random_state)
        self._sink = sink
        self._handles: list[RemovableHandle] = []
        self.held: list[list[Node]] = []
        self._listening = False
        self._time_first = _time_first(model)
        self._samples: int | None = None
        self._stays = is_compiled(model)
        if self._stays:
            self._attach()

    @contextlib.contextmanager
    def listening(self, cells: SampleGroups | None = None) -> Iterator[None]:
        """A context in which backward passes hand over their factors."""
        refuse_replaced(self._model, self._watched)
        if not self._handles:
            self._attach()
        self._listening = True
        self._samples = None if cells is None else len(cells.of_sample)
        try:
            with contextlib.nullcontext() if self._stays else self._functions.watching():
                yield
        except BaseException:
            self.close()
            raise
        finally:
            self._listening = False
            while self.held:
                self.held.pop().clear()
            if not self._stays:
                self.close()

    def close(self) -> None:
        """Take every hook off the model."""
        while self._handles:
            self._handles.pop().remove()

    def _attach(self) -> None:
        for watched in self._watched:
            if watched.rule is None:
                continue
            hook = _ForwardHook(self, watched)
            self._handles.append(watched.module.register_forward_hook(hook, with_kwargs=True))
            if watched.rule.draws_random(watched.module):
                self._handles.append(watched.module.register_forward_pre_hook(hook.before, with_kwargs=True))

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

    @property
    def computed_gradients(self) -> dict[str, Tensor]:
        """What backward left in the weights that their modules compute, by layer name: (out, in) float64 each."""
        return self._functions.computed_gradients

    def hear(self, watched: WatchedModule, call: LayerCall) -> None:
        """Explain one backward pass through one module and hand its factors on."""
        if not self._listening:
            raise AutoSpecError(
                f"layer {watched.name!r}: backward ran outside the recorder.batch(...) in which its forward pass ran"
            )
        self._refuse_steps_for_samples(watched, call.output[0])
        with torch.no_grad(), _full_precision(call.output[0].device):
            with _naming(watched):
                assert watched.rule is not None
                factors = watched.rule.explain(watched.module, call)
                trained = [use for use in watched.uses if use.layer.is_trained]
                explained = [(use, part) for use in trained for part in parts_of(factors, use)]
            for use, part in explained:
                self._sink(use, part)

    def _refuse_steps_for_samples(self, watched: WatchedModule, output: Tensor) -> None:
        """AutoSpecError where the first dimension may be the steps of another layer, of which there are as many."""
        if self._time_first is None or hasattr(watched.module, "batch_first"):
            return
        if output.dim() > 2 and self._samples and output.shape[:2] == (self._samples,) * 2 != (1, 1):
            raise AutoSpecError(
                f"layer {watched.name!r} sees {self._samples} samples and as many steps, and layer "
                f"{self._time_first!r} takes steps first: samples and steps cannot be told apart; use batch_first=True"
            )

    @property
    def is_listening(self) -> bool:
        return self._listening


class _ForwardHook:
    """The hooks of one module's forward: they keep the call, and wait for the adjoints of its output."""

    def __init__(self, listener: HookListener, watched: WatchedModule) -> None:
        self._listener = listener
        self._watched = watched
        self.random_state: dict[str, Tensor] = {}

    def before(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Keep the random state in which the call begins."""
        if self._listener.is_listening and torch.is_grad_enabled() and module.training:
            self.random_state = random_state((inputs, keywords))

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        if not (self._listener.is_listening and torch.is_grad_enabled()):
            return
        tensors = tuple(leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor))
        awaited = [tensor for tensor in tensors if tensor.requires_grad]
        if not awaited:
            return
        kept_inputs, kept_keywords = tree_map(_detached, inputs), tree_map(_detached, keywords)
        versions = [leaf._version for leaf in _tensors((kept_inputs, kept_keywords))]
        kept_output = tuple(tensor.detach() for tensor in tensors)
        random_before, self.random_state = self.random_state, {}
        training = module.training
        places, outputs = [i for i, tensor in enumerate(tensors) if tensor.requires_grad], len(tensors)

        def receive(adjoints: Sequence[Tensor | None]) -> None:
            if [leaf._version for leaf in _tensors((kept_inputs, kept_keywords))] != versions:
                raise AutoSpecError(
                    f"layer {self._watched.name!r}: its input was changed in place before backward, so the "
                    "activation is lost; change a copy instead"
                )
            placed: list[Tensor | None] = [None] * outputs
            for place, adjoint in zip(places, adjoints, strict=True):
                placed[place] = None if adjoint is None else adjoint.detach()
            call = LayerCall(kept_inputs, kept_keywords, kept_output, tuple(placed), random_before, training)
            self._listener.hear(self._watched, call)

        self._listener.held.append(_on_adjoints(awaited, receive))


def _on_adjoints(outputs: Sequence[Tensor], receive: Callable[[Sequence[Tensor | None]], None]) -> list[Node]:
    """Call ``receive`` once per backward pass with the adjoints of outputs, None for those that it does not reach.

    Returns the nodes of the graph that are held for it, to be cleared when no backward pass is to be heard any more.

    torch's own ``register_multi_grad_hook`` stays silent where an output is what the backward pass begins at.
    """
    sources = [_source(outputs[0]), *((output, _as_it_is) for output in outputs[1:])]
    # what hooks hold of their own graph keeps it alive for ever: no tensors, and the nodes until the batch ends
    transforms = [transform for _, transform in sources]
    nodes = [get_gradient_edge(source).node for source, _ in sources]
    arrived: dict[int, dict[int, Tensor | None]] = {}

    def hook_of(place: int) -> Callable[[Tensor], None]:
        def hook(adjoint: Tensor) -> None:
            task = torch._C._current_graph_task_id()
            found = arrived.setdefault(task, {})
            found[place] = adjoint if adjoint is None else transforms[place](adjoint)
            coming = (node for other, node in enumerate(nodes) if other not in found)
            if not any(torch._C._will_engine_execute_node(node) for node in coming):
                del arrived[task]
                receive([found.get(other) for other in range(len(transforms))])

        return hook

    for place, (source, _) in enumerate(sources):
        source.register_hook(hook_of(place))
    return nodes


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


def _time_first(model: nn.Module) -> str | None:
    """The name of the first module that takes steps before samples, where there is one."""
    found = (name for name, module in model.named_modules() if getattr(module, "batch_first", None) is False)
    name = next(found, None)
    return None if name is None else layer_name(name)


def _as_it_is(adjoint: Tensor) -> Tensor:
    return adjoint


def _is_permuted(base: Tensor, view: Tensor) -> bool:
    """Whether a view holds every number of its base once."""
    slowest_first = sorted(range(view.dim()), key=view.stride, reverse=True)
    return base.is_contiguous() and base.numel() == view.numel() and view.permute(slowest_first).is_contiguous()


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
