"""Every use of every weight matrix of a model, and the rule that explains it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

import autospec.capture.rules  # noqa: F401 (registers the rules)
from autospec.capture.rules.registry import Rule, rule_of
from autospec.errors import AutoSpecError
from autospec.store.schema import layer_name


@dataclass(frozen=True)
class Weight:
    """A weight matrix where a module of the model uses it; ``rule`` is None where no layer rule explains it."""

    parameter: nn.Parameter
    module_name: str
    module: nn.Module
    local_name: str
    rule: Rule | None
    computed: str = ""
    """Where it is one of those that a layer's weight is computed from: which weight, of which layer."""

    @property
    def name(self) -> str:
        """The name that the weight is stored under, where this is its first use."""
        return layer_name(f"{self.module_name}.{self.local_name}".lstrip("."))


def weights_of(model: nn.Module) -> list[Weight]:
    """Every use of every weight matrix, trained or not, in the model's order; without a rule, one at its owner."""
    _refuse_lazy(model)
    computed = _computed(model)
    explained = dict(_explained(model))
    by_rule = {id(weight.parameter) for own in explained.values() for weight in own}
    found = []
    for name, module in model.named_modules():
        found += explained.get(name, [])
        for local_name, parameter in module.named_parameters(recurse=False):
            has_spectrum = is_matrix(local_name, parameter) and not isinstance(module, (nn.LayerNorm, nn.RMSNorm))
            if id(parameter) not in by_rule and has_spectrum:
                found.append(Weight(parameter, name, module, local_name, None, computed.get(id(parameter), "")))
    return found


def is_matrix(local_name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter that no rule explains has a spectrum.

    Biases and norms, of one dimension, have none. With a side of 1 only a weight has one (of a single singular
    value), and it is its name alone that tells it from a row of tokens or positions.
    """
    if parameter.dim() < 2:
        return False
    return min(parameter.flatten(1).shape) > 1 or "weight" in local_name


def _explained(model: nn.Module) -> Iterator[tuple[str, list[Weight]]]:
    """The weights of each module that has a rule."""
    owned: set[int] = set()
    for name, module in model.named_modules():
        rule = rule_of(module)
        if rule is None or id(module) in owned:
            continue
        owned.update(id(module.get_submodule(child)) for child in rule.owns)
        parameters = {local: _parameter(name, module, local) for local in rule.weights(module)}
        weights = [Weight(value, name, module, local, rule) for local, value in parameters.items() if value is not None]
        if len(weights) == len(parameters):
            yield name, weights


def _parameter(name: str, module: nn.Module, local_name: str) -> nn.Parameter | None:
    """The weight that a rule names; None where it is computed from parameters, AutoSpecError where there is none."""
    owner_name, _, last = local_name.rpartition(".")
    try:
        owner = module.get_submodule(owner_name)
        value = getattr(owner, last)
    except AttributeError:
        there = ", ".join(name for name, _ in module.named_parameters())
        raise AutoSpecError(
            f"layer {layer_name(name)!r}: the rule of {type(module).__name__} explains {local_name!r}, "
            f"which the layer does not have; there are {there}"
        ) from None
    return value if owner._parameters.get(last) is value and value is not None else None


def _computed(model: nn.Module) -> dict[int, str]:
    """What the parameters stand for that a layer's weight is computed from, by their ids."""
    found: dict[int, str] = {}
    for name, module in model.named_modules():
        rule = rule_of(module)
        for local in () if rule is None else rule.weights(module):
            if _parameter(name, module, local) is None:
                what = f"{local!r} of layer {layer_name(name)!r}"
                found |= {id(parameter): what for parameter in module.parameters() if id(parameter) not in found}
    return found


def _refuse_lazy(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if any(nn.parameter.is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            raise AutoSpecError(
                f"layer {layer_name(name)!r} ({type(module).__name__}) has no weights before its first call; run the "
                "model on one batch, then make the recorder"
            )
