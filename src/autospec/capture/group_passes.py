"""Two ways to run a model for one group's samples such that the group's own weight gradients are left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from autospec.capture.agreement import dense
from autospec.capture.layers import Layer
from autospec.errors import AutoSpecError

ByCell = dict[int, Tensor]


class AliasPasses:
    """Each pass runs on aliases of the weights: backward leaves the group's gradient in each, their sum in the weight.

    An alias is the weight itself under another name in the graph, so no product is computed twice.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self._watched = [id(layer.parameter) for layer in layers]
        # every place of every parameter: a weight stands in for itself wherever it is
        self._places = [
            (module._parameters, name, parameter)
            for module in model.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]
        self._recurrent = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
        self._aliases: list[tuple[int, dict[int, Tensor]]] = []

    def begin(self) -> None:
        """Forget all passes."""
        self._aliases = []

    def end(self) -> None:
        """Forget all passes, and let no module keep an alias."""
        if self._aliases:
            for module in self._recurrent:
                module._update_flat_weights()
        self._aliases = []

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """A context whose passes are forgotten, while those before it are kept."""
        kept, self._aliases = self._aliases, []
        try:
            yield
        finally:
            self._aliases = kept

    def run(
        self, cell: int, forward: Callable[..., Any], leaves: Sequence[Any], spec: TreeSpec
    ) -> tuple[list[Any], TreeSpec]:
        """The leaves of the output of one pass and their structure."""
        aliases: dict[int, Tensor] = {}
        for _, _, weight in self._places:
            if weight.requires_grad and id(weight) not in aliases:
                aliases[id(weight)] = weight.view_as(weight)
        for key in self._watched:
            if key in aliases:
                aliases[key].retain_grad()
        self._aliases.append((cell, aliases))
        inputs, keywords = tree_unflatten(leaves, spec)
        try:
            for holder, name, weight in self._places:
                holder[name] = aliases.get(id(weight), weight)  # type: ignore[assignment]
            return tree_flatten(forward(*inputs, **keywords))
        finally:
            for holder, name, weight in self._places:
                holder[name] = weight

    def gradients(self, layers: Sequence[Layer]) -> Iterator[tuple[Layer, ByCell]]:
        """Every layer that a backward pass has reached, with the gradients of its groups by cell."""
        for layer in layers:
            arrived: ByCell = {}
            for cell, aliases in self._aliases:
                alias = aliases.get(id(layer.parameter))
                gradient = None if alias is None else dense(alias.grad)
                if gradient is not None:
                    arrived[cell] = arrived[cell] + gradient if cell in arrived else gradient
            if arrived:
                yield layer, arrived


class BackwardPasses:
    """Each pass has a backward pass of its own, inside that of the whole batch, which gives the group's gradients."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self._model = model
        self._watched = {id(layer.parameter) for layer in layers}
        self._arrived: dict[int, ByCell] = {}

    def begin(self) -> None:
        """Forget all passes."""
        self._arrived = {}

    end = begin

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """A context whose passes are forgotten, while those before it are kept."""
        kept, self._arrived = self._arrived, {}
        try:
            yield
        finally:
            self._arrived = kept

    def run(
        self, cell: int, forward: Callable[..., Any], leaves: Sequence[Any], spec: TreeSpec
    ) -> tuple[list[Any], TreeSpec]:
        """The leaves of the output of one pass and their structure."""
        detached = [
            leaf.detach().requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf for leaf in leaves
        ]
        entering = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        inner = [leaf for leaf in detached if isinstance(leaf, Tensor) and leaf.requires_grad]
        weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        inputs, keywords = tree_unflatten(detached, spec)
        output, shape = tree_flatten(forward(*inputs, **keywords))
        places = [place for place, leaf in enumerate(output) if isinstance(leaf, Tensor) and leaf.requires_grad]
        if places:
            one_pass = _Pass([output[place] for place in places], [*inner, *weights], len(inner), self._keeper(cell))
            results = _GroupPass.apply(one_pass, *entering, *weights)
            for place, result in zip(places, results, strict=True):
                output[place] = result
        return output, shape

    def gradients(self, layers: Sequence[Layer]) -> Iterator[tuple[Layer, ByCell]]:
        """Every layer that a backward pass has reached, with the gradients of its groups by cell."""
        for layer in layers:
            arrived = self._arrived.get(id(layer.parameter))
            if arrived:
                yield layer, arrived

    def _keeper(self, cell: int) -> Callable[[Tensor, Tensor], None]:
        arrived = self._arrived

        def keep(weight: Tensor, gradient: Tensor) -> None:
            if id(weight) in self._watched:
                gradient = gradient.to_dense() if gradient.is_sparse else gradient
                of_weight = arrived.setdefault(id(weight), {})
                of_weight[cell] = of_weight[cell] + gradient if cell in of_weight else gradient

        return keep


class _Pass:
    """One group's pass: its outputs, what they depend on (its inputs, then the weights), and who keeps gradients."""

    def __init__(
        self, outputs: list[Tensor], sources: list[Tensor], inputs: int, keep: Callable[[Tensor, Tensor], None]
    ) -> None:
        self.outputs, self.sources, self.inputs, self.keep = outputs, sources, inputs, keep


class _GroupPass(torch.autograd.Function):
    """The outputs of one group's pass, cut off from its graph; backward goes through that graph by itself."""

    @staticmethod
    def forward(ctx: Any, one_pass: _Pass, *sources: Tensor) -> tuple[Tensor, ...]:
        ctx.one_pass = one_pass
        ctx.set_materialize_grads(False)
        return tuple(output.detach() for output in one_pass.outputs)

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_order("passes")
        one_pass: _Pass = ctx.one_pass
        pairs = [(output, seed) for output, seed in zip(one_pass.outputs, adjoints, strict=True) if seed is not None]
        if not pairs:
            return (None,) * (1 + len(one_pass.sources))
        outputs, seeds = zip(*pairs, strict=True)
        with torch.enable_grad():
            found = torch.autograd.grad(outputs, one_pass.sources, seeds, retain_graph=True, allow_unused=True)
        for weight, gradient in zip(one_pass.sources[one_pass.inputs :], found[one_pass.inputs :], strict=True):
            if gradient is not None:
                one_pass.keep(weight, gradient)
        return None, *found


def refuse_second_order(engine: str) -> None:
    """AutoSpecError inside a backward pass that is to be differentiated itself."""
    if torch.is_grad_enabled():
        raise AutoSpecError(
            f"engine={engine!r} does not take backward passes with create_graph=True (a gradient penalty); use "
            "engine='per_group' or 'hooks'"
        )
