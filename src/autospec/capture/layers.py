"""Which weights of a model are watched, under which names, and which module calls explain them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from torch import nn

from autospec.capture.rules.registry import Rule, supported_types
from autospec.capture.selection import Selection, chosen_weights
from autospec.capture.weights import Weight, weights_of
from autospec.errors import AutoSpecError
from autospec.store.schema import layer_name


@dataclass(frozen=True)
class Layer:
    """One weight: the name it is stored under, its matrix's shape, and the module type that uses it first."""

    name: str
    parameter: nn.Parameter
    kind: str

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight's matrix, ``weight.flatten(1)``: (out, in) for a linear layer."""
        rows, columns = self.parameter.flatten(1).shape
        return rows, columns


@dataclass(frozen=True)
class Use:
    """One module's use of a weight; ``name`` is the layer's for its first use, a path below it for others."""

    name: str
    layer: Layer
    local_name: str


@dataclass(frozen=True)
class WatchedModule:
    """A module whose calls explain the gradients of some weights."""

    name: str
    module: nn.Module
    rule: Rule
    uses: tuple[Use, ...] = ()


def watched_modules(model: nn.Module, selection: Selection = None) -> list[WatchedModule]:
    """The modules to listen to for the weights that a selection names.

    ``selection`` holds layer-name patterns (``encoder.*``; ``!decoder.*`` leaves out) and module types; None means
    every weight matrix that is trained. Raises AutoSpecError for a selection that does not fit the model, and for a
    chosen weight whose layer type has no rule or refuses.
    """
    found = weights_of(model)
    layers = _layers(found, chosen_weights(model, found, selection))
    watched: dict[int, WatchedModule] = {}
    met: set[int] = set()
    for weight in found:
        layer = layers.get(id(weight.parameter))
        if layer is None:
            continue
        if weight.rule is None:
            raise _unexplained(weight)
        module_name = layer_name(weight.module_name)
        name = layer.name if id(weight.parameter) not in met else f"{layer.name}/uses/{module_name}"
        met.add(id(weight.parameter))
        entry = watched.get(id(weight.module)) or _accepted(module_name, weight.module, weight.rule)
        watched[id(weight.module)] = replace(entry, uses=(*entry.uses, Use(name, layer, weight.local_name)))
    return list(watched.values())


def trained_layers(model: nn.Module, selection: Selection = None) -> list[Layer]:
    """Every trained weight matrix that a selection names, whether or not its layer type has a rule."""
    found = weights_of(model)
    return list(_layers(found, chosen_weights(model, found, selection)).values())


def _layers(found: Sequence[Weight], chosen: Collection[int]) -> dict[int, Layer]:
    """The chosen weights by the id of their parameter, named after their first use."""
    layers: dict[int, Layer] = {}
    for weight in found:
        if id(weight.parameter) in chosen:
            kind = type(weight.module).__name__
            layers.setdefault(id(weight.parameter), Layer(weight.name, weight.parameter, kind))
    return layers


def _accepted(name: str, module: nn.Module, rule: Rule) -> WatchedModule:
    """A module to watch; AutoSpecError where its rule refuses it."""
    reason = rule.refuse(module)
    if reason:
        raise AutoSpecError(f"layer {name!r} ({type(module).__name__}): {reason}")
    return WatchedModule(name, module, rule)


def _unexplained(weight: Weight) -> AutoSpecError:
    if weight.computed:
        return AutoSpecError(
            f"{weight.computed} is no parameter but computed from others, {weight.name!r} among them (weight_norm, "
            "spectral_norm, pruning), for which there is no rule; use engine='per_group', or leave them out with "
            f"layers=['!{weight.name}', ...]"
        )
    return AutoSpecError(
        f"layer {weight.name!r} is a weight of {type(weight.module).__name__}, for which there is no rule. Supported: "
        f"{', '.join(supported_types())}. Register one with autospec.register_rule, "
        f"or leave it out with layers=['!{weight.name}']"
    )
