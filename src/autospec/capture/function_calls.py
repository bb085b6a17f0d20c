"""Watching calls of functions: the weights that no module's call explains, whoever multiplies by them.

While a batch is open, a mode sees every call of a torch function and lets it through unchanged. A call that takes a
watched weight and something that is no weight is a use of it. What is computed from weights alone (a view, a mask, a
cast, a norm) is followed to the call that uses it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from autospec.capture.derived_weights import DerivedWeight, factors_of_root, is_view
from autospec.capture.fused_calls import FUSED, fused_call
from autospec.capture.layers import Use, WatchedModule
from autospec.capture.leaf_gradients import Arrival
from autospec.capture.rules.functions import function_rule
from autospec.capture.rules.generic import generic_factors, writes_in_place
from autospec.capture.rules.registry import LayerCall, Rule
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors

Attach = Callable[[WatchedModule, nn.Module, tuple[Any, ...], Mapping[str, Any], Any, Mapping[str, Tensor]], None]
"""Waits for the adjoints of a call: (what is watched, module, arguments, keywords, output, random state before)."""
RandomState = Callable[[Any], dict[str, Tensor]]


_CONSTANTS = {torch.arange, torch.zeros, torch.ones, torch.eye, torch.full, torch.linspace}
"""Functions that fill a tensor by a rule, not with data."""

COMPLEX = (
    "the weight is used as complex numbers, whose products are not followed; use engine='per_group', or leave the "
    "layer out with layers=['!{name}']"
)


class FunctionCalls:
    """The uses of a model's weights outside the modules whose rules explain them.

    Args:
        model: the model.
        watched: what is watched of it; entries without a rule are recorded from function calls.
        attach: takes a call and waits for the adjoints of its output.
        random_state: reads the random state of the devices of some tensors.
        arrive: takes what a backward pass brings to a weight that its module computes.
    """

    def __init__(
        self,
        model: nn.Module,
        watched: Sequence[WatchedModule],
        attach: Attach,
        random_state: RandomState,
        arrive: Arrival,
    ) -> None:
        self._model, self._watched = model, watched
        self._attach, self._random_state, self._arrive = attach, random_state, arrive
        self._by_function = [entry for entry in watched if entry.rule is None]
        self._batches = 0
        self._met_outside = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which calls are seen, where there are any to be expected.

        The first batch is always looked at, since a weight that its module's rule explains may be used elsewhere too.
        """
        if not (self._by_function or self._met_outside or self._batches == 0):
            yield
            return
        mode = _CallMode(self._model, self._watched, self._attach, self._random_state, self._arrive)
        with mode.hooked(), mode:
            yield
        self._batches += 1
        self._met_outside |= mode.met_outside


class _CallMode(TorchFunctionMode):
    """Sees the calls of one batch."""

    def __init__(
        self,
        model: nn.Module,
        watched: Sequence[WatchedModule],
        attach: Attach,
        random_state: RandomState,
        arrive: Arrival,
    ) -> None:
        super().__init__()
        self._model, self._watched = model, watched
        self._attach, self._random_state, self._arrive = attach, random_state, arrive
        self._uses: dict[int, tuple[WatchedModule, Use]] = {}
        for entry in watched:
            for use in entry.uses:
                if not use.layer.computed:
                    self._uses.setdefault(id(use.layer.parameter), (entry, use))
        self._weights: dict[int, DerivedWeight] = {id(p): DerivedWeight(p) for p in model.parameters()}
        self._buffers = {id(buffer): buffer for buffer in model.buffers()}
        self._constants: Any = WeakTensorKeyDictionary()
        self._inside: Counter[int] = Counter()
        self._computing = self._depth = 0
        self._ways: dict[str, tuple[str, int]] = {}
        self._handles: list[RemovableHandle] = []
        self.met_outside = False

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """A context with the hooks that tell which modules are running and which weights they computed."""
        try:
            for module in (self._model, *self._model.children()):
                self._handles += self._know_whether_inside(module)
            for entry in self._watched:
                if entry.rule is not None:
                    self._handles += self._follow(entry)
                else:
                    for use in entry.uses:
                        self._handles += self._catch(entry, use) if use.layer.computed else []
            yield
        finally:
            while self._handles:
                self._handles.pop().remove()
            self._weights.clear()
            self._buffers.clear()

    def _know_whether_inside(self, module: nn.Module) -> list[RemovableHandle]:
        """Count the calls that are under way of the model, or of a part of it that is called alone."""

        def enters(*call: Any) -> None:
            self._depth += 1

        def leaves(*call: Any) -> None:
            self._depth -= 1

        return [module.register_forward_pre_hook(enters), module.register_forward_hook(leaves, always_call=True)]

    def _follow(self, entry: WatchedModule) -> list[RemovableHandle]:
        """Count a module's weights as explained while it runs."""
        keys = [id(use.layer.parameter) for use in entry.uses]

        def enters(*call: Any) -> None:
            self._inside.update(keys)

        def leaves(*call: Any) -> None:
            self._inside.subtract(keys)

        module = entry.module
        return [module.register_forward_pre_hook(enters), module.register_forward_hook(leaves, always_call=True)]

    def _catch(self, entry: WatchedModule, use: Use) -> list[RemovableHandle]:
        """Know the weight that a module computes from others when it has done so."""
        computing = computing_module(entry.module, use.local_name)
        if computing is None:
            # an older kind computes it before the module's forward, in a hook that stands before this one
            return [
                entry.module.register_forward_pre_hook(
                    lambda module, inputs: self._computed(entry, use, getattr(module, use.local_name))
                )
            ]

        def enters(*call: Any) -> None:
            self._computing += 1

        def leaves(module: nn.Module, inputs: Any, output: Any) -> None:
            self._computing -= 1
            self._computed(entry, use, output)

        return [
            computing.register_forward_pre_hook(enters),
            computing.register_forward_hook(leaves, always_call=True),
        ]

    def _computed(self, entry: WatchedModule, use: Use, weight: Any) -> None:
        if not isinstance(weight, Tensor) or not weight.requires_grad:
            return
        known = self._weights.get(id(weight))
        if known is not None and known.layer is not None:
            return
        self._weights[id(weight)] = DerivedWeight(weight, use.layer.name, parents=() if known is None else (known,))
        self._uses[id(weight)] = (entry, use)
        self._handles.append(weight.register_hook(lambda gradient: self._arrive(use.layer, gradient)))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        before = self._random_state((args, kwargs)) if func in FUSED and torch.is_grad_enabled() else {}
        output = func(*args, **kwargs)
        if isinstance(output, (Tensor, tuple, list)):
            self._see(func, args, kwargs, output, before)
        return output

    def _see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, before: Any) -> None:
        """Follow what a call computes from weights alone, and wait for the adjoints of one that uses them."""
        places = list(_tensors_of(args, kwargs))
        weights = [(place, self._weights[id(tensor)]) for place, tensor in places if id(tensor) in self._weights]
        others = [tensor for _, tensor in places if id(tensor) not in self._weights and not self._is_constant(tensor)]
        if others:
            if weights and torch.is_grad_enabled():
                self._use(func, args, kwargs, output, before, weights, others)
            return
        if not places and not self._computing and not (self._depth and is_constant(func, output)):
            return  # made of numbers alone: a batch's data, or noise, as far as one can tell
        # what the rule of the module that is running explains is followed no further
        parents = tuple(weight for _, weight in weights if not self._is_inside(weight))
        if weights and not parents:
            return
        results = output if isinstance(output, (tuple, list)) else (output,)
        for pick, result in enumerate(results):
            is_in_place = bool(args) and result is args[0] and writes_in_place(func)
            if not isinstance(result, Tensor) or (id(result) in self._weights and not is_in_place):
                continue
            if parents and result.requires_grad:
                pick_or_none = pick if isinstance(output, (tuple, list)) else None
                self._weights[id(result)] = DerivedWeight(result, None, (func, args, kwargs, pick_or_none), parents)
            else:
                self._constants[result] = True

    def _is_inside(self, weight: DerivedWeight) -> bool:
        return any(self._inside[id(root.tensor)] > 0 for root in weight.roots())

    def _is_constant(self, tensor: Tensor) -> bool:
        is_number = not tensor.dim() and not tensor.requires_grad  # as the index of an expert is
        return is_number or id(tensor) in self._buffers or tensor in self._constants

    def _use(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
        before: Mapping[str, Tensor],
        weights: Sequence[tuple[tuple[Any, ...], DerivedWeight]],
        others: list[Tensor],
    ) -> None:
        if not any(leaf.requires_grad and leaf.dim() for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)):
            return
        wanted = []
        for place, weight in weights:
            for root in weight.roots():
                found = self._uses.get(id(root.tensor))
                if found is not None and root.tensor.requires_grad and not self._inside[id(root.tensor)]:
                    entry, use = found
                    wanted.append((place, weight, root, entry, self._named(func, weight.tensor, entry, use)))
        if not wanted:
            return
        self.met_outside |= any(entry.rule is not None for *_, entry, _ in wanted)
        if func in FUSED:
            fused = fused_call(func, args, kwargs, [(root.tensor, entry, use) for _, _, root, entry, use in wanted])
            if fused is not None:
                self._attach(*fused, output, before)
                return
        for place, weight, root, entry, use in wanted:
            rule = Rule(self._explanation(func, place, weight, root, entry, use, others), lambda layer: ())
            watched = WatchedModule(use.layer.name, entry.module, rule, (use,))
            self._attach(watched, entry.module, args, kwargs, output, before)

    def _named(self, func: Any, used: Tensor, entry: WatchedModule, use: Use) -> Use:
        """The use under a name of its own, where another function, or another layout, used the weight before.

        Activations and adjoints of one use have one width.
        """
        name = getattr(func, "__name__", "function").strip("_")
        way = (name, used.stride(-1) if used.dim() else 0)
        if entry.rule is None and self._ways.setdefault(use.layer.name, way) == way:
            return use
        turned = "_transposed" if entry.rule is None and self._ways[use.layer.name][0] == name else ""
        return replace(use, name=f"{use.layer.name}/uses/{name}{turned}")

    def _explanation(
        self,
        func: Any,
        place: tuple[Any, ...],
        weight: DerivedWeight,
        root: DerivedWeight,
        entry: WatchedModule,
        use: Use,
        others: list[Tensor],
    ) -> Callable[[Any, LayerCall], Mapping[str, GradientFactors]]:
        """What explains the use of one weight in one call."""
        rule = function_rule(func, place[0])
        met = [other.detach() for other in others]

        def explain(layer: Any, call: LayerCall) -> Mapping[str, GradientFactors]:
            if any(tensor is not None and tensor.is_complex() for tensor in (weight.tensor, *met, *call.adjoints)):
                raise AutoSpecError(COMPLEX.format(name=use.layer.name))
            # a stack of matrices that is computed may be one for each sample
            applies = rule is not None and (weight.tensor.dim() != 3 or is_view(weight, root))
            factors = rule(call, weight.tensor.detach()) if rule is not None and applies else None
            if factors is None:
                factors = generic_factors(func, place, call, weight.tensor.detach(), met)
            return {use.local_name: factors_of_root(factors, weight, root)}

        return explain


def is_constant(function: Any, made: Any) -> bool:
    """Whether what a function makes of numbers, while a model runs, is the same for all samples."""
    return function in _CONSTANTS or (isinstance(made, Tensor) and made.numel() == 1)


def computing_module(module: nn.Module, local_name: str) -> ParametrizationList | None:
    """The parametrization that computes a weight of a module, where it is one."""
    lists = getattr(module, "parametrizations", None)
    if not isinstance(lists, nn.ModuleDict) or local_name not in lists:
        return None
    computing = lists[local_name]
    return computing if isinstance(computing, ParametrizationList) else None


def _tensors_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """The tensors among a call's arguments, and in lists among them, with their places."""
    for key, value in (*enumerate(args), *kwargs.items()):
        if isinstance(value, Tensor):
            yield (key,), value
        elif isinstance(value, (tuple, list)):
            for inner, part in enumerate(value):
                if isinstance(part, Tensor):
                    yield (key, inner), part
