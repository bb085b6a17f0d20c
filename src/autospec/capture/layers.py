"""Which weights of a model are watched, under which names, and what explains them."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from autospec.capture.pieces import is_piece
from autospec.capture.rules.registry import Rule, supported_types
from autospec.capture.run_again import without_rules
from autospec.capture.selection import Selection, chosen_weights
from autospec.capture.weights import Weight, left_out, weights_of
from autospec.errors import AutoSpecError
from autospec.store.schema import layer_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layer:
    """One weight, as it is stored.

    Attributes:
        name: the name that it is stored under.
        parameter: the weight; of one that its module computes from parameters, the largest of these.
        kind: the type of the module that uses it first.
        weight_shape: the shape of the weight, where it is not that of ``parameter``.
        computed: whether its module computes it (weight norm, spectral norm, pruning): the gradient is that of what
            the module multiplies by, not of a parameter.
        is_split: whether its module is run again for each group, beside a model that hooks listen to.
    """

    name: str
    parameter: nn.Parameter
    kind: str
    weight_shape: torch.Size | None = None
    computed: bool = False
    is_split: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight's matrix, ``weight.flatten(1)``: (out, in) for a linear layer."""
        shape = self.parameter.shape if self.weight_shape is None else self.weight_shape
        return shape[0], math.prod(shape[1:])

    @property
    def is_trained(self) -> bool:
        """Whether it gets a gradient now; a frozen layer is watched, and recorded once it trains."""
        return self.parameter.requires_grad

    @property
    def is_sharded(self) -> bool:
        """Whether this process holds a piece of the weight, all of which is there inside its module's passes alone."""
        return is_piece(self.parameter)


@dataclass(frozen=True)
class Use:
    """One module's use of a weight; ``name`` is the layer's for its first use, a path below it for others."""

    name: str
    layer: Layer
    local_name: str


@dataclass(frozen=True)
class WatchedModule:
    """A module whose weights are watched.

    Attributes:
        name: its path in the model.
        module: the module.
        rule: what explains a call of it; None where the calls of functions on its weights are watched instead.
        uses: its uses of weights.
        is_witness: whether it only helps to trace rows, and is not recorded.
    """

    name: str
    module: nn.Module
    rule: Rule | None
    uses: tuple[Use, ...] = ()
    is_witness: bool = False

    @property
    def recorded_by(self) -> str:
        """How its weights are recorded, in words."""
        return "calls of functions" if self.rule is None else "calls of the module"


def watched_modules(model: nn.Module, selection: Selection = None, split: Collection[str] = ()) -> list[WatchedModule]:
    """The modules to listen to for the weights that a selection names.

    Args:
        model: the model.
        selection: layer-name patterns (``encoder.*``; ``!decoder.*`` leaves out) and module types; None means every
            weight matrix. Frozen ones are watched too, so that they are recorded once they train.
        split: the names of layers whose modules are to be run again for each group.

    Returns:
        The modules in the model's order, each with its uses of the chosen weights.

    Raises:
        AutoSpecError: for a selection that does not fit the model, and for the layers, all of them, that cannot be
            recorded.
    """
    weights = weights_of(model)
    chosen = chosen_weights(model, weights, selection)
    if split:
        _refuse_compiled(model, split)
        weights = without_rules(model, weights, split)
    layers = _layers(weights, chosen, split)
    watched: dict[Any, WatchedModule] = {}
    met: set[tuple[int, bool]] = set()
    for weight in weights:
        layer = layers.get(weight.key)
        if layer is None:
            continue
        if weight.rule is None and weight.key in met:
            continue  # calls of functions are of one weight, whichever module holds it
        module_name = layer_name(weight.module_name)
        name = layer.name if weight.key not in met else f"{layer.name}/uses/{module_name}"
        met.add(weight.key)
        key = (id(weight.module), id(weight.rule)) if weight.rule is not None else id(weight)
        entry = watched.get(key) or WatchedModule(module_name, weight.module, weight.rule)
        watched[key] = replace(entry, uses=(*entry.uses, Use(name, layer, weight.local_name)))
    _refuse(model, watched.values())
    return list(watched.values())


def trained_layers(model: nn.Module, selection: Selection = None) -> list[Layer]:
    """Every trained weight matrix that a selection names, whether or not anything explains it.

    Args:
        model: the model.
        selection: see ``watched_modules``. Of a weight that is computed from parameters, these are the layers.

    Returns:
        The layers in the model's order.

    Raises:
        AutoSpecError: for a selection that does not fit the model.
    """
    weights = [replace(weight, part_of="") for weight in weights_of(model) if not weight.computed and weight.is_trained]
    chosen = chosen_weights(model, weights, selection)
    return list(_layers(weights, chosen).values())


def refuse_replaced(model: nn.Module, watched: Sequence[WatchedModule]) -> None:
    """Name the watched layers that the model no longer has.

    Args:
        model: the model as it is now.
        watched: what was found when the recorder was made.

    Raises:
        AutoSpecError: where a module or its weight was replaced since then.
    """
    gone = []
    for entry in watched:
        for use in entry.uses:
            if not _is_held(model, entry, use):
                gone.append(use.layer.name)
    _refuse_gone(gone)


def refuse_missing(model: nn.Module, layers: Sequence[Layer]) -> None:
    """AutoSpecError that names the layers whose weight is no parameter of the model any more."""
    held = {id(parameter) for parameter in model.parameters()}
    _refuse_gone([layer.name for layer in layers if id(layer.parameter) not in held])


def _refuse_gone(gone: Sequence[str]) -> None:
    if gone:
        names = ", ".join(repr(name) for name in dict.fromkeys(gone))
        raise AutoSpecError(
            f"layer {names}: replaced after the recorder was made, so that what trains now is not recorded; make "
            "a new recorder (with resume=True to go on in the same file)"
        )


def _is_held(model: nn.Module, entry: WatchedModule, use: Use) -> bool:
    """Whether a module of the model still holds a weight."""
    held = held_parameter(entry, use)
    is_same = held is use.layer.parameter or (use.layer.is_sharded and held is not None and not is_piece(held))
    return (use.layer.computed or is_same) and _is_part(model, entry)


def held_parameter(entry: WatchedModule, use: Use) -> nn.Parameter | None:
    """What a module holds now under the name of a weight."""
    module = entry.module
    path, _, last = use.local_name.rpartition(".")
    for part in filter(None, path.split(".")):
        module = module._modules[part] or module
    return module._parameters.get(last)


def _is_part(model: nn.Module, entry: WatchedModule) -> bool:
    """Whether a module is where it was; its path may have lost the prefixes of wrappers."""
    module: nn.Module | None = model
    for part in filter(None, entry.name.split(".")):
        while module is not None and part not in module._modules and len(module._modules) == 1:
            module = next(iter(module._modules.values()))
        module = None if module is None else module._modules.get(part)
    while module is not entry.module and module is not None and len(module._modules) == 1:
        module = next(iter(module._modules.values()))
    return module is entry.module


def _layers(
    weights: Sequence[Weight], chosen: Collection[tuple[int, bool]], split: Collection[str] = ()
) -> dict[tuple[int, bool], Layer]:
    """The chosen weights by their key, named after their first use."""
    layers: dict[tuple[int, bool], Layer] = {}
    for weight in weights:
        if weight.key in chosen:
            kind = type_before_parametrizations(weight.module).__name__
            shape = weight.shape if weight.computed else None
            is_split = weight.name in split
            layers.setdefault(weight.key, Layer(weight.name, weight.parameter, kind, shape, weight.computed, is_split))
    return layers


def _refuse(model: nn.Module, watched: Collection[WatchedModule]) -> None:
    """AutoSpecError for the layers that cannot be recorded, all of them, with what to do."""
    reasons: dict[str, str] = {}
    compiled = _is_compiled(model)
    for entry in watched:
        reason = entry.rule.refuse(entry.module) if entry.rule is not None else None
        if entry.rule is None and compiled:
            reason = "a compiled model runs past the calls of functions that would explain it"
        if entry.rule is None and any(use.layer.is_sharded for use in entry.uses):
            reason = "calls of functions would explain it, which do not see the pieces that fully_shard makes of it"
        reasons |= {use.layer.name: f"({type(entry.module).__name__}): {reason}" for use in entry.uses if reason}
    if reasons:
        raise _refusal(reasons, compiled and any(entry.rule is None for entry in watched))


def _refusal(reasons: Mapping[str, str], compiled: bool) -> AutoSpecError:
    listed = "; ".join(f"layer {name!r} {reason}" for name, reason in reasons.items())
    patterns = ", ".join(repr(f"!{name}") for name in reasons)
    eager = (
        f" Give the recorder the model before it is compiled; compiled, it records {', '.join(supported_types())} and"
        " what autospec.register_rule adds."
    )
    return AutoSpecError(f"{listed}. Leave them out with layers=[{patterns}].{eager * compiled}")


def _refuse_compiled(model: nn.Module, split: Collection[str]) -> None:
    if _is_compiled(model):
        raise AutoSpecError(
            f"engine='per_group' for layer {next(iter(split))!r}: does not take compiled models; give the recorder the "
            "model before it is compiled"
        )


def _is_compiled(model: nn.Module) -> bool:
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def say_what_is_left_out(model: nn.Module) -> None:
    """Log the trained parameters that have no spectrum, in one line, with the reason of each."""
    reasons = left_out(model)
    if reasons:
        listed = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
        log.info("not recorded, having no spectrum: %s", listed)
