"""The hooks that stand on a model's modules while it is listened to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node
from torch.utils._pytree import tree_flatten, tree_unflatten

from autospec.capture.adjoints import on_adjoints
from autospec.capture.layers import WatchedModule
from autospec.capture.rules.registry import LayerCall
from autospec.capture.trace import Traced
from autospec.errors import AutoSpecError


class Listener(Protocol):
    """What the hooks call."""

    held: list[list[Node]]

    @property
    def takes_calls(self) -> bool:
        """Whether a module's call is of interest now."""

    def entered(self, inputs: Any) -> None:
        """A module is called."""

    def left(self, output: Any) -> None:
        """A call of a module is over."""

    def called(self, watched: WatchedModule) -> Call:
        """A new call of a watched module."""

    def receive(self, call: Call, arrived: LayerCall) -> None:
        """The adjoints of a call have arrived."""


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


class Boundary:
    """Hooks that notice where a call of the model, or of a part of it, begins and ends.

    Args:
        listener: is told.
        is_step: whether the module's outer call is a whole training step, which returns a loss, and only calls of it
            inside that one are forward passes.
    """

    def __init__(self, listener: Listener, is_step: bool = False) -> None:
        self._listener = listener
        self._is_step = is_step
        self._depth = 0

    def enter(self, module: nn.Module, inputs: Any, keywords: Any) -> None:
        self._depth += 1
        if self._depth > self._is_step:
            self._listener.entered((inputs, keywords))

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._depth = max(self._depth - 1, 0)
        if self._depth >= self._is_step:
            self._listener.left(output)

    def __deepcopy__(self, memo: dict[int, Any]) -> Boundary:
        return Boundary(_Deaf())


class ForwardHook:
    """The hooks of one module's forward: they keep the call, and wait for the adjoints of its output."""

    def __init__(self, listener: Listener, watched: WatchedModule) -> None:
        self._listener = listener
        self._watched = watched
        self.random_state: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> ForwardHook:
        """A copy of the model made inside a batch is another model, which nobody listens to."""
        return ForwardHook(_Deaf(), WatchedModule(self._watched.name, nn.Identity(), self._watched.rule))

    def before(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Keep the random state in which the call begins."""
        if self._listener.takes_calls and module.training:
            self.random_state = random_state((inputs, keywords))

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        # copy.copy of a module shares its hooks; that copy is watched, and heard, by itself
        is_copy = module is not self._watched.module and not getattr(module, "_is_replica", False)
        if is_copy or not self._listener.takes_calls:
            return
        tensors = tuple(leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor))
        awaited = [tensor for tensor in tensors if tensor.requires_grad]
        trains = any(use.layer.parameter.requires_grad for use in self._watched.uses)
        if not awaited or not (trains or self._watched.is_witness):
            return
        # one walk through the arguments: a forward pass waits for it
        leaves, structure = tree_flatten((inputs, keywords))
        leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        kept_inputs, kept_keywords = tree_unflatten(leaves, structure)
        entered = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        versions = [tensor._version for tensor in entered]
        kept_output = tuple(tensor.detach() for tensor in tensors)
        output_versions = [tensor._version for tensor in kept_output]
        random_before, self.random_state = self.random_state, {}
        training = module.training
        places, outputs = [i for i, tensor in enumerate(tensors) if tensor.requires_grad], len(tensors)
        call = self._listener.called(self._watched)
        listener, watched = self._listener, self._watched

        held = [(kept_inputs, kept_keywords, kept_output, entered)]
        if watched.is_witness:
            call.kept = held  # let go of once rows are traced
        del kept_inputs, kept_keywords, kept_output, entered, leaves

        def receive(adjoints: Sequence[Tensor | None]) -> None:
            if not held:
                return
            kept_inputs, kept_keywords, kept_output, entered = held[0]
            if [tensor._version for tensor in entered] != versions:
                if watched.is_witness:
                    return
                raise AutoSpecError(
                    f"layer {watched.name!r}: its input was changed in place before backward, so the activation is "
                    "lost; change a copy instead"
                )
            placed: list[Tensor | None] = [None] * outputs
            for place, adjoint in zip(places, adjoints, strict=True):
                placed[place] = None if adjoint is None else adjoint.detach()
            intact = [tensor._version for tensor in kept_output] == output_versions
            arrived = LayerCall(kept_inputs, kept_keywords, kept_output, tuple(placed), random_before, training, intact)
            listener.receive(call, arrived)

        nodes, edges = on_adjoints(awaited, receive)
        self._listener.held.append(nodes)
        if not call.is_recomputed:
            call.edges, call.output, call.shape = edges, awaited[0], tuple(awaited[0].shape)


class _Deaf:
    """What the hooks of a copied model call: nothing is taken."""

    takes_calls = False

    def __init__(self) -> None:
        self.held: list[list[Node]] = []

    def entered(self, inputs: Any) -> None:
        """Nothing."""

    def left(self, output: Any) -> None:
        """Nothing."""

    def called(self, watched: WatchedModule) -> Call:
        """Never asked for, since no calls are taken."""
        raise NotImplementedError

    def receive(self, call: Call, arrived: LayerCall) -> None:
        """Nothing."""


def random_state(tree: Any) -> dict[str, Tensor]:
    """The random state of the CPU and of every CUDA device that a call's arguments are on; only read."""
    devices = sorted({str(leaf.device) for leaf in _tensors(tree) if leaf.is_cuda})
    return {"cpu": torch.get_rng_state()} | {device: torch.cuda.get_rng_state(device) for device in devices}


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]
