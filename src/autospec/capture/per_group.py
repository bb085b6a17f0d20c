"""Group gradients without layer rules: one forward pass per group, on aliases of the weights.

Each alias is the weight itself under another name in the graph, so that backward leaves the group's gradient in the
alias and their sum in the weight, and no product is computed twice. It holds for any module that treats samples one by
one; training is equal to that without a recorder within rounding, not to the bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from autospec.capture.hooks import is_compiled
from autospec.capture.layers import Layer
from autospec.errors import AutoSpecError
from autospec.spectra.groups import SampleGroups

GroupGradients = Callable[[Layer, Tensor, float], None]
"""Takes a layer, its gradient of every cell, (cells, out, in), and the spacing of the numbers it was computed in."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""The largest difference between the split and the unsplit pass, relative to the latter."""
HALF_TOLERANCE = 0.05
"""The same where half precision takes part."""


class PerGroupEngine:
    """Stands in for a model's forward inside a batch and hands over the group gradients after its backward.

    Raises AutoSpecError for modules that couple samples, and where a split pass disagrees with an unsplit one: on the
    first batch and on every ``check_every``-th (None: the first only).
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], take: GroupGradients, check_every: int | None = None
    ) -> None:
        refuse_coupling(model)
        self._model = model
        self._layers = {id(layer.parameter): layer for layer in layers}
        self._take = take
        self._check_every = check_every
        self._batches = 0
        self._eps = 0.0
        self._aliases: list[tuple[int, dict[int, Tensor]]] = []
        self._inside = False

    @contextlib.contextmanager
    def listening(self, cells: SampleGroups) -> Iterator[None]:
        """A context in which ``model(...)`` runs group by group; its gradients are handed over at the end."""
        forward, own = self._model.forward, "forward" in vars(self._model)
        self._aliases, self._eps = [], 0.0
        self._model.forward = self._standing_in(forward, cells)
        try:
            yield
            self._hand_over(cells)
            self._batches += 1
        finally:
            if own:
                self._model.forward = forward
            else:
                del self._model.forward  # the class's own shows again
            self._aliases = []

    def close(self) -> None:
        """Nothing is left on the model between batches."""

    def _standing_in(self, forward: Callable[..., Any], cells: SampleGroups) -> Callable[..., Any]:
        def stand_in(*inputs: Any, **keywords: Any) -> Any:
            if self._inside or not torch.is_grad_enabled() or not self._model.training:
                return forward(*inputs, **keywords)
            self._inside = True
            self._eps = max(self._eps, _autocast_eps(self._model))
            try:
                if self._batches == 0 or (self._check_every and self._batches % self._check_every == 0):
                    self._check(inputs, keywords, cells)
                return self._split(inputs, keywords, cells)
            finally:
                self._inside = False

        return stand_in

    def _split(self, inputs: Any, keywords: Any, cells: SampleGroups) -> Any:
        """The model's output for the whole batch, from one pass per cell."""
        parts = []
        for cell, samples in enumerate(cells.samples):
            if not len(samples):
                continue
            aliases = {id(weight): weight.view_as(weight) for weight in self._model.parameters()}
            for key in self._layers:
                aliases[key].retain_grad()
            self._aliases.append((cell, aliases))
            chosen_inputs, chosen_keywords = rows_of((inputs, keywords), samples, cells)
            # a weight stands in for itself wherever it is: torch's own tying swaps a module with two names twice over,
            # and leaves it without its parameters
            named = {name: aliases[id(weight)] for name, weight in self._places()}
            parts.append(functional_call(self._model, named, chosen_inputs, chosen_keywords, tie_weights=False))
        return joined(parts, cells)

    def _places(self) -> list[tuple[str, nn.Parameter]]:
        """Every parameter at every module that holds it, each module under one of its names."""
        return [
            (f"{name}.{local_name}".lstrip("."), parameter)
            for name, module in self._model.named_modules()
            for local_name, parameter in module._parameters.items()
            if parameter is not None
        ]

    def _hand_over(self, cells: SampleGroups) -> None:
        for key, layer in self._layers.items():
            arrived: dict[int, Tensor] = {}
            for cell, aliases in self._aliases:
                gradient = aliases[key].grad
                if gradient is not None:
                    arrived[cell] = arrived[cell] + gradient.flatten(1) if cell in arrived else gradient.flatten(1)
            if arrived:
                zeros = torch.zeros_like(next(iter(arrived.values())))
                gradients = torch.stack([arrived.get(cell, zeros) for cell in range(len(cells.samples))])
                self._take(layer, gradients, max(self._eps, torch.finfo(gradients.dtype).eps))

    def _check(self, inputs: Any, keywords: Any, cells: SampleGroups) -> None:
        """Compare a split with an unsplit pass, dropout off; the random state stays as it was."""
        with torch.random.fork_rng(), without_dropout(self._model):
            split = self._split(inputs, keywords, cells)
            aliases, self._aliases = self._aliases, []
            whole = self._model(*inputs, **keywords)
            pairs = list(zip(_trained(split), _trained(whole), strict=True))
            for part, unsplit in pairs:
                self._agree(part, unsplit, "the outputs")
            weights = [layer.parameter for layer in self._layers.values()]
            seeds = [torch.cos(torch.arange(w.numel(), device=w.device)).reshape(w.shape).to(w.dtype) for _, w in pairs]
            of_whole = torch.autograd.grad([w for _, w in pairs], weights, seeds, allow_unused=True)
            roots = [of_cell[key] for _, of_cell in aliases for key in self._layers]
            of_parts = torch.autograd.grad([s for s, _ in pairs], roots, seeds, allow_unused=True)
            for place, (layer, expected) in enumerate(zip(self._layers.values(), of_whole, strict=True)):
                found = [part for part in of_parts[place :: len(weights)] if part is not None]
                if expected is not None and found:
                    self._agree(torch.stack(found).sum(0), expected, f"layer {layer.name!r}")

    def _agree(self, found: Tensor, expected: Tensor, what: str) -> None:
        difference = float((found - expected).detach().norm() / expected.detach().norm().clamp_min(1e-30))
        tolerance = HALF_TOLERANCE if self._eps else TOLERANCE.get(expected.dtype, HALF_TOLERANCE)
        if not difference <= tolerance:
            raise AutoSpecError(
                f"engine='aliased': {what} of {type(self._model).__name__} run group by group differ from those of the "
                f"whole batch (by {difference:.1e} of their norm): its samples depend on one another; "
                "use engine='hooks'"
            )


def refuse_coupling(model: nn.Module) -> None:
    """AutoSpecError for a compiled model and for modules that are known to couple the samples of a batch."""
    if is_compiled(model):
        raise AutoSpecError("engine='aliased' does not take compiled models; use engine='hooks'")
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise AutoSpecError(
                f"engine='aliased': module {name!r} ({type(module).__name__}) couples the samples of a batch, so one "
                "pass per group is another network; use engine='hooks', or GroupNorm"
            )


def rows_of(tree: Any, samples: Tensor, cells: SampleGroups) -> Any:
    """The arguments of a forward pass for some samples: every tensor whose first dimension is the batch's."""
    n = len(cells.of_sample)

    def rows(leaf: Any) -> Any:
        is_batch = isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == n
        return leaf.index_select(0, samples.to(leaf.device)) if is_batch else leaf

    return tree_map(rows, tree)


def joined(parts: Sequence[Any], cells: SampleGroups) -> Any:
    """One output for the whole batch, in its order, from the outputs of the cells."""
    order = torch.cat([samples for samples in cells.samples if len(samples)])
    place = torch.argsort(order)
    flat, shape = zip(*(tree_flatten(part) for part in parts), strict=True)
    leaves = []
    for pieces in zip(*flat, strict=True):
        if not isinstance(pieces[0], Tensor):
            leaves.append(pieces[0])
            continue
        lengths = [len(piece) if piece.dim() else 0 for piece in pieces]
        if lengths != [len(samples) for samples in cells.samples if len(samples)]:
            raise AutoSpecError(
                "engine='aliased' needs outputs whose first dimension is the sample, not one of shape "
                f"{tuple(pieces[0].shape)} for a part of the batch; compute the loss outside the model"
            )
        leaves.append(torch.cat(pieces).index_select(0, place.to(pieces[0].device)))
    return tree_unflatten(leaves, shape[0])


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """A context in which no part of the model draws random numbers by its training flag or a dropout rate."""
    modes = [(module, module.training) for module in model.modules()]
    rates = [(module, module.dropout) for module, _ in modes if isinstance(module, nn.RNNBase)]
    recurrent = {id(module) for module, _ in rates}
    try:
        for module, _ in modes:
            module.training = module.training and id(module) in recurrent
        for module, _ in rates:
            module.dropout = 0.0  # a GPU's recurrent kernel has no backward pass outside training
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, rate in rates:
            module.dropout = rate


def _trained(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor) and leaf.requires_grad]


def _autocast_eps(model: nn.Module) -> float:
    """The spacing of the numbers that autocast computes in; 0 where it is off."""
    device = next(model.parameters()).device.type
    return torch.finfo(torch.get_autocast_dtype(device)).eps if torch.is_autocast_enabled(device) else 0.0
