"""Group gradients without layer rules: the model runs once for each group's own samples.

It holds for any module that treats samples one by one, which is proved on the first batch by comparing with an unsplit
pass; training is equal to that without a recorder within rounding, not to the bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from autospec.capture.agreement import Unsplittable, autocast_eps
from autospec.capture.batch_layout import BatchLayout, input_layouts, sample_dimensions
from autospec.capture.group_passes import AliasPasses, BackwardPasses
from autospec.capture.hooks import is_compiled
from autospec.capture.layers import Layer, refuse_missing
from autospec.capture.memory import Pool
from autospec.capture.part_order import PartOrder
from autospec.capture.proved_again import SPLIT_PASSES, has_diverged, is_due
from autospec.capture.split_proof import prove_split
from autospec.errors import AutoSpecError
from autospec.spectra.groups import SampleGroups

GroupGradients = Callable[[Layer, Tensor, float], None]
"""Takes a layer, its gradient of every cell, (cells, out, in), and the spacing of the numbers it was computed in."""

Forward = Callable[..., Any]


class PerGroupEngine:
    """Stands in for a model's forward inside a batch and hands over the group gradients after its backward.

    So it does for a part of the model that is called directly. Raises AutoSpecError for modules that couple samples,
    and where a split pass disagrees with an unsplit one: on the first batch, on every ``check_every``-th (None: so many
    that it costs 1 %, and where values could join samples, the 2nd, 4th, 8th, ...), and wherever a call's arguments or
    the modes of the modules are otherwise than in those before.

    Attributes:
        is_steady: whether no values could join samples that the proof found apart.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        take: GroupGradients,
        check_every: int | None = None,
        name: str = "per_group",
    ) -> None:
        if is_compiled(model):
            raise Unsplittable(f"engine={name!r} does not take compiled models; use engine='hooks'")
        self.name = name
        self.model = model
        self.layers = layers
        self.passes = BackwardPasses(model, layers) if name == "passes" else AliasPasses(model, layers)
        self.pool = Pool()
        self._take = take
        self._check_every = check_every
        self._layouts: dict[Any, BatchLayout] = {}
        self._parts = list(model.modules())
        self._modes: tuple[bool, ...] = ()
        self.is_steady = True
        self._batches = 0
        self._order = PartOrder(name)
        self._eps = 0.0
        self._inside = False
        self._cells: SampleGroups | None = None
        self._modules = entries(model, {id(layer.parameter) for layer in layers})
        self._norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    @contextlib.contextmanager
    def listening(self, cells: SampleGroups) -> Iterator[None]:
        """A context in which ``model(...)`` runs group by group; its gradients are handed over at the end."""
        self._eps = 0.0
        refuse_missing(self.model, self.layers)
        is_steady = self.is_steady and not self._order.has_parts
        is_to_prove = is_due(self._batches + 1, SPLIT_PASSES, is_steady, self._check_every)
        is_to_prove = is_to_prove and not has_diverged(self.model)
        if is_to_prove and self._batches:  # a trial may have proved the first
            self._layouts.clear()
        self._modes = tuple([part.training for part in self._parts])
        self._order.begin(len(cells.of_sample), is_to_prove)
        self.passes.begin()
        try:
            stand_in = standing_in(self._modules, lambda module, forward: self._stand_in(module, forward, cells))
            with stand_in, self._order:
                yield
            self.hand_over(cells)
            self._batches += 1
        finally:
            self.passes.end()

    @contextlib.contextmanager
    def trying(self, cells: SampleGroups) -> Iterator[None]:
        """A context for passes whose gradients nobody takes, through ``prove`` and ``forward_of``."""
        with self.passes.aside():
            self._cells, before = cells, self._cells
            try:
                yield
            finally:
                self._cells = before

    def prove(self, module: nn.Module, arguments: Any, cells: SampleGroups) -> None:
        """Show that a call can be split; AutoSpecError where it cannot."""
        refuse_missing(self.model, self.layers)
        self._refuse_batch_norm()
        leaves, spec = tree_flatten(arguments)
        key = self._kind(module, spec, leaves, cells)
        if self._layouts.get(key) is None:
            if not any(True for _ in input_layouts(leaves, len(cells.of_sample))):
                raise Unsplittable(f"engine={self.name!r}: no tensor of {len(cells.of_sample)} samples is given to it")
            self._layouts[key] = prove_split(self, module, module.forward, leaves, spec, cells)

    def forward_of(self, module: nn.Module) -> Forward:
        """The split forward of a module, inside ``trying``."""
        assert self._cells is not None
        return self._stand_in(module, module.forward, self._cells)

    def of_twin(self, twin: nn.Module) -> PerGroupEngine:
        """An engine like this for a copy of its model, whose gradients nobody takes."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        layers = [
            Layer(layer.name, twin.get_parameter(names[id(layer.parameter)]), layer.kind) for layer in self.layers
        ]
        return PerGroupEngine(without_stand_ins(twin), layers, lambda layer, gradients, eps: None, name=self.name)

    def close(self) -> None:
        """Nothing is left on the model between batches."""

    def _stand_in(self, module: nn.Module, forward: Forward, cells: SampleGroups) -> Forward:
        @stands_in
        def stand_in(*inputs: Any, **keywords: Any) -> Any:
            if self._inside or not torch.is_grad_enabled():
                return forward(*inputs, **keywords)
            self._inside = True
            try:
                self._order.entered(type(module).__name__, (inputs, keywords))
                output = self.run(module, forward, (inputs, keywords), cells)
                self._order.left(output)
                return output
            finally:
                self._inside = False

        return stand_in

    def run(self, module: nn.Module, forward: Forward, arguments: Any, cells: SampleGroups) -> Any:
        """The module's output for the whole batch, from one pass per cell."""
        self._refuse_batch_norm()
        self._eps = max(self._eps, autocast_eps(self.model))
        leaves, spec = tree_flatten(arguments)
        key = self._kind(module, spec, leaves, cells)
        layout = self._layouts.get(key)
        if layout is None:
            if not any(True for _ in input_layouts(leaves, len(cells.of_sample))):
                return self._unsplit(module, forward, leaves, spec, len(cells.of_sample))
            layout = self._layouts[key] = prove_split(self, module, forward, leaves, spec, cells)
        output = self.split(forward, leaves, spec, layout, cells)
        if output is None:  # what explained the outputs so far does not explain these
            layout = self._layouts[key] = prove_split(self, module, forward, leaves, spec, cells)
            output = self.split(forward, leaves, spec, layout, cells)
        return output

    def _kind(self, module: nn.Module, spec: TreeSpec, leaves: Sequence[Any], cells: SampleGroups) -> Any:
        """What calls have in common that one proof holds for."""
        return id(module), str(spec), sample_dimensions(leaves, len(cells.of_sample)), self._modes

    def split(
        self, forward: Forward, leaves: Sequence[Any], spec: TreeSpec, layout: BatchLayout, cells: SampleGroups
    ) -> Any:
        """The joined output of the passes over the cells; None where the layout does not tell how to join them."""
        parts, shape = self.parts(forward, leaves, spec, layout, cells)
        joined = layout.joined(parts, leaves, cells, self.pool)
        return None if joined is None else tree_unflatten(joined, shape)

    def parts(
        self, forward: Forward, leaves: Sequence[Any], spec: TreeSpec, layout: BatchLayout, cells: SampleGroups
    ) -> tuple[list[list[Any]], TreeSpec]:
        """The leaves of the output for each cell that is not empty, and their structure."""
        parts = []
        for cell, rows in enumerate(cells.rows):
            if rows is not None:
                of_cell = layout.of_cell(leaves, rows, self.pool)
                part, shape = self.passes.run(cell, forward, of_cell, spec)
                parts.append(part)
        return parts, shape

    def hand_over(self, cells: SampleGroups) -> None:
        """Give every layer's gradients to the recorder."""
        for layer, arrived in self.passes.gradients(self.layers):
            zeros = torch.zeros_like(next(iter(arrived.values())))
            gradients = torch.stack([arrived.get(cell, zeros) for cell in range(len(cells.samples))])
            self._take(layer, gradients.flatten(2), max(self._eps, torch.finfo(gradients.dtype).eps))

    def _refuse_batch_norm(self) -> None:
        for module in self._norms:
            if module.training or not module.track_running_stats:
                name = next(name for name, other in self.model.named_modules() if other is module)
                raise Unsplittable(
                    f"engine={self.name!r}: module {name!r} ({type(module).__name__}) couples the samples of a batch, "
                    "so one pass per group is another network; use engine='fast' or 'hooks', or GroupNorm"
                )

    def _unsplit(self, module: nn.Module, forward: Forward, leaves: Sequence[Any], spec: TreeSpec, samples: int) -> Any:
        """The output of a call that no sample goes into; an error once a backward pass comes through it."""
        inputs, keywords = tree_unflatten(leaves, spec)
        output = forward(*inputs, **keywords)
        shapes = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]

        def refuse(adjoint: Tensor) -> None:
            raise AutoSpecError(
                f"engine={self.name!r}: a call of {type(module).__name__} got no tensor with {samples} samples "
                f"(shapes: {', '.join(map(str, shapes)) or 'none'}), but that many group labels were given, so its "
                "gradient cannot be split; call it with the whole batch, or use engine='hooks'"
            )

        for leaf in tree_flatten(output)[0]:
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                leaf.register_hook(refuse)
        return output


@contextlib.contextmanager
def standing_in(modules: Sequence[nn.Module], stand_in: Callable[[nn.Module, Forward], Forward]) -> Iterator[None]:
    """A context in which modules run another forward; one that the user put on a module comes back after it."""
    before = [(module, vars(module).get("forward")) for module in modules]
    try:
        for module in modules:
            object.__setattr__(module, "forward", stand_in(module, module.forward))
        yield
    finally:
        for module, users in before:
            if users is None:
                vars(module).pop("forward", None)  # the class's own shows again
            else:
                object.__setattr__(module, "forward", users)


def stands_in(forward: Forward) -> Forward:
    """A forward function marked as one that stands in for a module's own."""
    forward.stands_in = True  # type: ignore[attr-defined]
    return forward


def without_stand_ins(model: nn.Module) -> nn.Module:
    """A copy of a model, made inside a batch, with its own forward functions."""
    for module in model.modules():
        if hasattr(vars(module).get("forward"), "stands_in"):
            del module.forward
    return model


def entries(model: nn.Module, weights: set[int]) -> list[nn.Module]:
    """The model and every part of it that uses some of the weights: what a user may call."""
    return [
        module
        for module in model.modules()
        if module is model or any(id(parameter) in weights for parameter in module.parameters())
    ]
