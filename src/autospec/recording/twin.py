"""A batch in float64 beside the one that trains: what its gradients would be without float32's rounding."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from autospec.capture.copies import sharing
from autospec.capture.forward_hooks import random_state
from autospec.capture.hooks import is_compiled
from autospec.errors import AutoSpecError

SAME_OUTPUT = 0.1
"""A float64 output further off than this, of its norm, is no rounding: it has drawn other random numbers."""

_CASTS = {Tensor.float: Tensor.double, Tensor.half: Tensor.double, Tensor.bfloat16: Tensor.double}
_LESS_PRECISE = {torch.float32, torch.float16, torch.bfloat16}
_FAILURES = (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, AssertionError, AutoSpecError)


class TwinBatch(TorchFunctionMode):
    """Repeats in float64, at the same weights, everything between a model's input and its loss inside a batch.

    Calls of the model, or of its parts, run again on a float64 copy of it, ``twin``. What the loop computes from their
    outputs or from the weights, up to ``loss.backward()``, is repeated on the copy's, one torch function after the
    other. The model, its buffers, its gradients and the random state stay as they were. ``heard`` says whether the
    backward passes were repeated, ``refusal`` what stood in their way.

    Raises AutoSpecError for a model of which there is no float64 copy.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.twin = double_copy(model)
        self._pairs = dict(zip(model.modules(), self.twin.modules(), strict=True))
        self._weights = dict(zip(model.parameters(), self.twin.parameters(), strict=True))
        self._full_precision = _full_precision(model)
        self._double: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._calls: list[tuple[Any, dict[str, Tensor]]] = []
        self._depth = 0
        self._repeated = self._failed = False
        self.refusal = "no loss of the model's output was followed by loss.backward()"

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """A context for the batch's forward and backward pass, in which both are repeated."""
        handles = []
        for module in self._pairs:
            handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True))
            handles.append(module.register_forward_hook(self._after))
        self._double.update(self._weights)
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._double.clear()
            self._calls.clear()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a torch function and, where it works on what has a float64 value, again on that."""
        call = (tuple(args), dict(kwargs or {}))
        if self._depth or not any(isinstance(leaf, Tensor) and leaf in self._double for leaf in tree_leaves(call)):
            return function(*call[0], **call[1])
        doubled, before = self._doubled(call), random_state(call)
        result = function(*call[0], **call[1])
        drawn = not _equal(before, random_state(call))
        try:
            if isinstance(doubled, AutoSpecError):
                raise doubled
            with self._full_precision(), _inside(self):
                self._repeat(_CASTS.get(function, function), doubled, result, drawn)
        except _FAILURES as error:
            self._lose(call if result is None else result, error)
            self._failed = self._failed or function is Tensor.backward
        return result

    def _repeat(self, function: Callable[..., Any], call: Any, result: Any, drawn: bool) -> None:
        """Repeat one function that gave ``result``: one that gives tensors, writes into one, or begins backward."""
        args, kwargs = call
        if function is Tensor.backward:
            self._backward(*args, **kwargs)
        elif function is Tensor.__setitem__:
            function(*args, **kwargs)
        elif any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            if drawn:
                raise AutoSpecError("the loss draws random numbers")
            self._pair(result, function(*args, **kwargs))

    def _backward(self, loss: Tensor, gradient: Tensor | None = None, *_: Any, inputs: Any = None, **__: Any) -> None:
        if inputs is not None:
            raise AutoSpecError("backward(inputs=...) reaches some weights alone")
        with in_double():
            loss.backward(gradient, retain_graph=True)
        self._repeated = True

    @property
    def heard(self) -> bool:
        """Whether every backward pass from what the model gave was repeated, and there was one."""
        return self._repeated and not self._failed

    # --- the model's calls ---------------------------------------------------------------------------------------

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Keep what a call is made with, in float64, before the model can change it in place."""
        if _in_backward():
            return  # a checkpoint's recomputation, which may end by an exception
        self._depth += 1
        if self._depth == 1:
            self._calls.append((self._doubled((args, kwargs)), random_state((args, kwargs))))

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        """Repeat the call that has just returned."""
        if _in_backward():
            return
        self._depth -= 1
        if self._depth:
            return
        doubled, state = self._calls.pop()
        try:
            if isinstance(doubled, AutoSpecError):
                raise doubled
            double_args, double_kwargs = doubled
            with self._full_precision(), _inside(self), _restored(state):
                with in_double():
                    result = self._pairs[module](*double_args, **double_kwargs)
                self._pair(output, result, tolerance=SAME_OUTPUT)
        except _FAILURES as error:
            self._lose(output, error)

    # --- float64 values ------------------------------------------------------------------------------------------

    def _doubled(self, tree: Any) -> Any:
        """Arguments with the float64 value of every tensor: what was computed for it, or its own numbers.

        An AutoSpecError instead, not raised, where a value was lost or cannot be had.
        """

        doubles: dict[int, Tensor] = {}  # one tensor given twice (self-attention) stays one

        def double(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return _double_dtype(leaf)
            if leaf in self._double:
                value = self._double[leaf]
                if value is None:
                    raise AutoSpecError(self.refusal)
                return value
            if leaf.is_floating_point() and id(leaf) not in doubles:
                doubles[id(leaf)] = leaf.detach().double()
            return doubles.get(id(leaf), leaf)

        try:
            with _inside(self):
                return tree_map(double, tree)
        except _FAILURES as error:
            return error if isinstance(error, AutoSpecError) else AutoSpecError(str(error))

    def _pair(self, result: Any, double: Any, tolerance: float | None = None) -> None:
        """Keep the float64 value of every tensor of a result; what is NaN is so in both."""
        for leaf, value in zip(tree_leaves(result), tree_leaves(double), strict=True):
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
                continue
            if tolerance is not None and (value - leaf).detach().norm() > tolerance * value.detach().norm():
                raise AutoSpecError("the model's output is another one in float64, of other random numbers perhaps")
            self._double[leaf] = value

    def _lose(self, tree: Any, error: Exception) -> None:
        """Note that tensors have no float64 value, nor has what is computed from them; the training goes on."""
        self.refusal = str(error).splitlines()[0] if str(error) else type(error).__name__
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor):
                self._double[leaf] = None


def double_copy(model: nn.Module) -> nn.Module:
    """A copy of a model in float64, without gradients and without a user's hooks; AutoSpecError where there is none."""
    if is_compiled(model) or any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise AutoSpecError("a compiled model has no float64 copy")
    try:
        with sharing():
            twin: nn.Module = copy.deepcopy(model).double()
    except _FAILURES as error:
        raise AutoSpecError(f"the model has no float64 copy: {str(error).splitlines()[0]}") from error
    for module in twin.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if not _is_torchs(hook)]:
                del hooks[key]
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    return twin


def _is_torchs(hook: Any) -> bool:
    """Whether a hook is torch's own (spectral norm, pruning), without which a layer has no weight."""
    return type(hook).__module__.startswith("torch.nn.")


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """A context in which what a model makes in float32 or less, or casts to it, is in float64."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _InDouble():
            yield
    finally:
        torch.set_default_dtype(default)


class _InDouble(TorchFunctionMode):
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        double_args, double_kwargs = tree_map(_double_dtype, (tuple(args), dict(kwargs or {})))
        return _CASTS.get(function, function)(*double_args, **double_kwargs)


def _double_dtype(leaf: Any) -> Any:
    return torch.float64 if isinstance(leaf, torch.dtype) and leaf in _LESS_PRECISE else leaf


@contextlib.contextmanager
def _inside(mode: TwinBatch) -> Iterator[None]:
    """A context whose torch functions are not followed."""
    mode._depth += 1
    try:
        yield
    finally:
        mode._depth -= 1


@contextlib.contextmanager
def _restored(before: Mapping[str, Tensor]) -> Iterator[None]:
    """A context in an earlier random state, which leaves the present one behind."""
    now = {device: torch.get_rng_state() if device == "cpu" else torch.cuda.get_rng_state(device) for device in before}
    _set_random_state(before)
    try:
        yield
    finally:
        _set_random_state(now)


def _set_random_state(state: Mapping[str, Tensor]) -> None:
    for device, value in state.items():
        if device == "cpu":
            torch.set_rng_state(value)
        else:
            torch.cuda.set_rng_state(value, device)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, other[device]) for device, value in one.items())


def _full_precision(model: nn.Module) -> Callable[[], contextlib.AbstractContextManager[object]]:
    """Makes contexts without autocast on the model's device."""
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    if not torch.amp.is_autocast_available(device):
        return contextlib.nullcontext
    return lambda: torch.autocast(device, enabled=False)
