"""A module whose weights no rule explains, run once more beside training, with a backward pass for each group.

Backward is linear in the adjoint of what the module returned: with that of one group's samples alone, the others' set
to zero, it gives the group's part of the gradient. Where samples do not depend on one another inside the module, which
is proved by running it on the group's samples alone, that part is the gradient of the group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from autospec.capture.agreement import (
    FAILURES,
    difference,
    leaf_copies,
    other_parameters,
    random_state_kept,
    tolerance_of,
    without_dropout,
)
from autospec.capture.kept_state import attributes_kept
from autospec.capture.leaf_gradients import in_silence
from autospec.capture.proved_again import is_due
from autospec.capture.rules.registry import LayerCall, Rule
from autospec.capture.weights import Weight
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors, squared_norm

PASSES = 2
"""How many passes a proof takes: the module on all samples and on each group's, in turn."""


class _Running:
    """Whether a module is run again just now: hooks on its parts are not to hear it."""

    depth = 0


def is_running_again() -> bool:
    """Whether what runs now is a repetition beside training."""
    return _Running.depth > 0


def calling_module(model: nn.Module, path: str) -> tuple[str, nn.Module]:
    """The module that holds a weight, or the nearest one around it that can be called; and its path."""
    module = model.get_submodule(path)
    while path and type(module).forward is nn.Module.forward:
        path = path.rpartition(".")[0]
        module = model.get_submodule(path)
    return path, module


def rule_by_groups(weights: Sequence[str]) -> Rule:
    """The rule of a module whose weights, by their names in it, are had by running it again."""
    met: dict[Any, int] = {}

    def explain(module: nn.Module, call: LayerCall) -> Mapping[str, GradientFactors]:
        kind = tuple(_shape(leaf) for leaf in tree_flatten((call.inputs, call.keywords))[0]), module.training
        again = _Again(module, call, lambda: _is_to_prove(met, kind))
        parameters = dict(module.named_parameters(remove_duplicate=False))
        return {name: FactorsByGroups(again, parameters[name]) for name in weights}

    return Rule(explain, lambda module: tuple(weights), draws_random=lambda module: True)


def without_rules(model: nn.Module, weights: Sequence[Weight], chosen: Collection[str]) -> list[Weight]:
    """The uses of weights, those of the layers ``chosen`` explained by running their modules again.

    Raises:
        AutoSpecError: for a weight that its module computes from parameters.
    """
    keys = {weight.key: weight.name for weight in reversed(weights) if weight.name in chosen}
    found: list[Weight] = []
    by_module: dict[str, list[str]] = {}
    for weight in weights:
        if weight.key not in keys:
            found.append(weight)
            continue
        if weight.computed:
            raise AutoSpecError(
                f"layer {weight.name!r}: its weight is computed from parameters, and engine='per_group' by layer has "
                "the gradients of parameters alone; use 'hooks' for it"
            )
        path, module = calling_module(model, weight.module_name)
        local = f"{weight.module_name}.{weight.local_name}".removeprefix(f"{path}.").lstrip(".")
        by_module.setdefault(path, []).append(local)
        found.append(replace(weight, module_name=path, module=module, local_name=local))
    rules = {path: rule_by_groups(names) for path, names in by_module.items()}
    return [replace(w, rule=rules[w.module_name]) if w.key in keys else w for w in found]


def _is_to_prove(met: dict[Any, int], kind: Any) -> bool:
    met[kind] = met.get(kind, 0) + 1
    return is_due(met[kind], PASSES, False)


def _shape(leaf: Any) -> Any:
    return tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf)


class _Again:
    """One call of a module, repeated when its groups' gradients are asked for."""

    def __init__(self, module: nn.Module, call: LayerCall, is_to_prove: Callable[[], bool]) -> None:
        self.module, self.call = module, call
        self._is_to_prove = is_to_prove
        self._found: dict[tuple[int, ...], dict[int, Tensor]] = {}
        self._pairs = [(place, adjoint) for place, adjoint in enumerate(call.adjoints) if adjoint is not None]
        lengths = {len(adjoint) if adjoint.dim() else 0 for _, adjoint in self._pairs}
        if len(lengths) != 1 or not min(lengths):
            raise AutoSpecError(
                "run again for each group, all that it returns must have the samples for its first dimension; use "
                "engine='hooks' for it"
            )
        self.rows = lengths.pop()

    def adjoint(self) -> Tensor:
        """(rows, width): the adjoints of everything that the module returned."""
        return torch.cat([adjoint.reshape(self.rows, -1) for _, adjoint in self._pairs], 1)

    @cached_property
    def _is_due(self) -> bool:
        return self._is_to_prove()

    @cached_property
    def _graph(self) -> tuple[list[Tensor], dict[int, nn.Parameter]]:
        """What the module returns when it runs again, and the leaves that stood in for its weights."""
        leaves = leaf_copies(self.module)
        with self._aside(), torch.enable_grad(), other_parameters(self.module, leaves), self.call.replaying():
            returned = self.module.forward(*self.call.inputs, **self.call.keywords)
        outputs = [leaf for leaf in tree_flatten(returned)[0] if isinstance(leaf, Tensor)]
        return [outputs[place] for place, _ in self._pairs], leaves

    def gradient(self, weight: nn.Parameter, samples: Tensor) -> Tensor:
        """The gradient of a weight by the samples' adjoints alone."""
        key = tuple(samples.tolist())
        if key not in self._found:
            if self._is_due and 0 < len(key) < self.rows:
                self._prove(samples)
            outputs, leaves = self._graph
            trained = {id(leaf): leaf for leaf in leaves.values() if leaf.requires_grad}
            seeds = [torch.zeros_like(a).index_copy(0, samples, a.index_select(0, samples)) for _, a in self._pairs]
            with in_silence():
                found = torch.autograd.grad(
                    outputs, list(trained.values()), seeds, retain_graph=True, allow_unused=True
                )
            of_leaf = dict(zip(trained, found, strict=True))
            self._found[key] = {
                original: gradient
                for original, leaf in leaves.items()
                if (gradient := of_leaf.get(id(leaf))) is not None
            }
        return self._found[key].get(id(weight), torch.zeros_like(weight))

    def _prove(self, samples: Tensor) -> None:
        """AutoSpecError where the module gives some samples other outputs alone than among all."""
        near = tolerance_of(self._pairs[0][1].dtype)
        try:
            # in the mode of training, as what a module does in training alone shows there alone
            apart = self._apart(samples, by_mode=False)
            if not apart <= near and not self._apart(torch.arange(self.rows), by_mode=False) <= near:
                apart = self._apart(samples, by_mode=True)  # it draws random numbers by functions of its own
        except FAILURES as error:
            raise AutoSpecError(f"{self._said} cannot be run on one group's samples alone: {_line(error)}") from None
        if not apart <= near:
            raise AutoSpecError(
                f"{self._said} gives one group's samples other outputs alone than in the batch (by {apart:.1e} of "
                "their norm): its samples depend on one another, or it draws random numbers beside dropout; use "
                "engine='hooks' for it, or leave it out"
            )

    def _apart(self, samples: Tensor, by_mode: bool) -> float:
        """How far the outputs of some samples alone are from those among all, relative to their norm."""
        with self._aside(), torch.no_grad(), without_dropout(self.module, by_mode):
            whole = self._returned(lambda leaf: leaf)
            alone = self._returned(lambda leaf: leaf.index_select(0, samples.to(leaf.device)))
            return max(
                difference(alone[place], whole[place].index_select(0, samples.to(whole[place].device)))
                for place, _ in self._pairs
            )

    @property
    def _said(self) -> str:
        return f"engine='per_group': a {type(self.module).__name__}"

    def _returned(self, part: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """What the module returns for a part of its samples."""

        def taken(leaf: Any) -> Any:
            return part(leaf) if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == self.rows else leaf

        inputs, keywords = tree_map(taken, (self.call.inputs, self.call.keywords))
        returned = tree_flatten(self.module.forward(*inputs, **keywords))[0]
        return [leaf for leaf in returned if isinstance(leaf, Tensor)]

    @contextlib.contextmanager
    def _state_aside(self) -> Iterator[None]:
        with attributes_kept(self.module), _other_buffers(self.module):
            yield

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """A context of which nothing is heard, and after which random state, mode and buffers are as before."""
        mode = self.module.training
        leaves = tree_flatten((self.call.inputs, self.call.keywords))[0]
        _Running.depth += 1
        try:
            with torch._C.DisableTorchFunction(), random_state_kept(leaves), self._state_aside():
                if mode != self.call.training:
                    raise AutoSpecError(f"{self._said} was put into another mode between its call and backward")
                yield
        finally:
            _Running.depth -= 1


@contextlib.contextmanager
def _other_buffers(module: nn.Module) -> Iterator[None]:
    """A context in which copies stand in for a module's buffers: backward may need what the buffers hold."""
    places = [(part._buffers, name, buffer) for part in module.modules() for name, buffer in part._buffers.items()]
    try:
        for holder, name, buffer in places:
            holder[name] = None if buffer is None else buffer.clone()
        yield
    finally:
        for holder, name, buffer in places:
            holder[name] = buffer


class FactorsByGroups(GradientFactors):
    """The gradient of one weight of a module that is run again: of any samples, but without rows of ``A`` and ``Δ``."""

    has_rows = False
    has_norms = False

    def __init__(self, again: _Again, weight: nn.Parameter) -> None:
        self._again, self._weight = again, weight
        self._scale = 1.0
        adjoint = again.adjoint()
        self.stored = (adjoint[:, :0], adjoint)
        self.first_row = 0
        self.transposed = False
        self._row_counts = None

    @property
    def samples(self) -> int:
        return self._again.rows

    @property
    def positions(self) -> int:
        return 1

    @property
    def blocks(self) -> int:
        return 1

    @property
    def height(self) -> int:
        return self._weight.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self._weight.dtype

    def product(self, samples: Tensor) -> Tensor:
        """(out, in): the samples' part of the gradient (paper, eq. 5)."""
        gradient = self._again.gradient(self._weight, samples.to(self.device)).flatten(1)
        return gradient.to(torch.promote_types(self.dtype, torch.float32)) * self._scale

    def squared_norms(self) -> tuple[Tensor, Tensor]:
        """Per sample: no rows are known, so that these only multiply to at least the size of the gradient."""
        inputs = [
            leaf
            for leaf in tree_flatten((self._again.call.inputs, self._again.call.keywords))[0]
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim() and len(leaf) == self.samples
        ]
        of_adjoint = squared_norm(self.stored[1])
        of_inputs = sum((squared_norm(leaf.reshape(self.samples, -1)) for leaf in inputs), torch.ones_like(of_adjoint))
        everyone = torch.arange(self.samples, device=self.device)
        size = float(self.product(everyone).double().norm()) ** 2
        product = float(of_inputs.sum() * of_adjoint.sum())
        return of_inputs * max(1.0, size / product if product else 1.0), of_adjoint

    def scaled(self, factor: float) -> GradientFactors:
        """The factors of a loss that is ``factor`` times as large."""
        other = super().scaled(factor)
        assert isinstance(other, FactorsByGroups)
        other._scale = self._scale * factor
        return other


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
