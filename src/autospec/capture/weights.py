"""Every use of every weight matrix of a model, and the rule that explains it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

import autospec.capture.rules  # noqa: F401 (registers the rules)
from autospec.capture.rules.registry import Rule, rule_of
from autospec.layout import layer_name


@dataclass(frozen=True)
class Weight:
    """A weight matrix where a module of the model uses it; ``rule`` is None where no layer rule explains it."""

    parameter: nn.Parameter
    module_name: str
    module: nn.Module
    local_name: str
    rule: Rule | None

    @property
    def name(self) -> str:
        """The name that the weight is stored under, where this is its first use."""
        return layer_name(f"{self.module_name}.{self.local_name}".lstrip("."))


def weights_of(model: nn.Module) -> list[Weight]:
    """Every use of every weight matrix, trained or not, in the model's order; without a rule, one at its owner."""
    explained = dict(_explained(model))
    by_rule = {id(weight.parameter) for own in explained.values() for weight in own}
    found = []
    for name, module in model.named_modules():
        found += explained.get(name, [])
        for local_name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in by_rule and is_matrix(local_name, parameter):
                found.append(Weight(parameter, name, module, local_name, None))
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
        yield name, [Weight(module.get_parameter(local), name, module, local, rule) for local in rule.weights(module)]
