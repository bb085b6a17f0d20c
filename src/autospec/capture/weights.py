"""Every use of every weight matrix of a model, and the rule that explains it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

import autospec.capture.rules  # noqa: F401 (registers the rules)
from autospec.capture.rules.registry import Rule, rule_of
from autospec.errors import AutoSpecError
from autospec.store.schema import layer_name

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True)
class Weight:
    """A weight matrix where a module of the model uses it.

    Attributes:
        parameter: the weight; of one that is computed from parameters, the largest of these.
        module_name: the path of the module.
        module: the module that holds it.
        local_name: its name there.
        rule: what explains it by calls of its module; None where only function calls do.
        shape: the shape of what the module multiplies by.
        computed: whether the module computes it from parameters (weight norm, spectral norm, pruning).
        part_of: where it is one of those parameters: the name of the layer whose weight is computed.
    """

    parameter: nn.Parameter
    module_name: str
    module: nn.Module
    local_name: str
    rule: Rule | None
    shape: torch.Size
    computed: bool = False
    part_of: str = ""

    @property
    def name(self) -> str:
        """The name that the weight is stored under, where this is its first use."""
        return layer_name(f"{self.module_name}.{self.local_name}".lstrip("."))

    @property
    def key(self) -> tuple[int, bool]:
        """What all uses of one weight have in common."""
        return id(self.parameter), self.computed

    @property
    def is_trained(self) -> bool:
        """Whether it gets a gradient now."""
        return self.parameter.requires_grad


def weights_of(model: nn.Module) -> list[Weight]:
    """Every use of every weight matrix, trained or not, in the model's order; without a rule, one at its owner.

    Raises:
        AutoSpecError: for a layer without weights before its first call, and complex weights, by name.
    """
    _refuse_lazy(model)
    computed = {name: weights for name, module in model.named_modules() if (weights := _computed(name, module))}
    parts = {key: weight.name for weights in computed.values() for key, weight in weights.items()}
    explained = dict(_explained(model))
    by_rule = {id(weight.parameter) for weights in explained.values() for weight in weights}
    found: list[Weight] = []
    for name, module in model.named_modules():
        found += [*dict.fromkeys(computed.get(name, {}).values()), *explained.get(name, [])]
        for local, parameter in module.named_parameters(recurse=False):
            is_bare = id(parameter) not in by_rule and is_matrix(local, parameter) and not isinstance(module, NORMS)
            if is_bare or (id(parameter) in parts and parameter.dim() > 1):
                part_of = parts.get(id(parameter), "")
                found.append(Weight(parameter, name, module, local, None, parameter.shape, part_of=part_of))
    _refuse_complex(found)
    return found


def is_matrix(local_name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter that no rule explains has a spectrum.

    Biases and norms, of one dimension, have none. With a side of 1 only a weight has one (of a single singular
    value), and it is its name alone that tells it from a row of tokens or positions.
    """
    if parameter.dim() < 2:
        return False
    return min(parameter.flatten(1).shape) > 1 or "weight" in local_name


def left_out(model: nn.Module) -> dict[str, str]:
    """The trained parameters of a model that have no spectrum, and why.

    Returns:
        The reason by the parameter's full name.
    """
    listed = {id(weight.parameter) for weight in weights_of(model)}
    reasons: dict[str, str] = {}
    for name, module in model.named_modules():
        for local, parameter in module.named_parameters(recurse=False):
            if id(parameter) in listed or not parameter.requires_grad:
                continue
            full = layer_name(f"{name}.{local}".lstrip("."))
            if parameter.dim() < 2:
                reasons[full] = "one dimension"
            elif isinstance(module, NORMS):
                reasons[full] = "scale of a norm"
            else:
                reasons[full] = "a side of 1"
    return reasons


def _explained(model: nn.Module) -> Iterator[tuple[str, list[Weight]]]:
    """The weights of each module that has a rule."""
    owned: set[int] = set()
    for name, module in model.named_modules():
        rule = rule_of(module)
        if rule is None or id(module) in owned:
            continue
        parameters = {local: _parameter(name, module, local) for local in rule.weights(module)}
        if any(value is None for value in parameters.values()):
            continue  # computed from others: its function calls are watched
        owned.update(id(module.get_submodule(child)) for child in rule.owns)
        yield (
            name,
            [
                Weight(value, name, module, local, rule, value.shape)
                for local, value in parameters.items()
                if value is not None
            ],
        )


def _parameter(name: str, module: nn.Module, local_name: str) -> nn.Parameter | None:
    """The weight that a rule names; None where it is computed from parameters, AutoSpecError where there is none."""
    owner_name, _, last = local_name.rpartition(".")
    try:
        owner = module.get_submodule(owner_name)
        held = last in owner._parameters or last in computed_names(owner) or isinstance(getattr(owner, last), Tensor)
    except AttributeError:
        held = False
    if not held:
        there = ", ".join(name for name, _ in module.named_parameters())
        raise AutoSpecError(
            f"layer {layer_name(name)!r}: the rule of {type(module).__name__} explains {local_name!r}, "
            f"which the layer does not have; there are {there}"
        )
    return owner._parameters.get(last)


def computed_names(module: nn.Module) -> list[str]:
    """The names of a module's weights that are computed from its parameters at every call."""
    lists = getattr(module, "parametrizations", None)
    names = list(lists) if isinstance(lists, nn.ModuleDict) else []
    for hook in module._forward_pre_hooks.values():  # weight_norm, spectral_norm and pruning of the older kind
        local = getattr(hook, "name", None) or getattr(hook, "_tensor_name", None)
        if isinstance(local, str) and isinstance(vars(module).get(local), Tensor) and local not in names:
            names.append(local)
    return names


def _computed(name: str, module: nn.Module) -> dict[int, Weight]:
    """The weights that a module computes, by the id of each parameter that they are computed from."""
    found: dict[int, Weight] = {}
    for local in computed_names(module):
        parts = _parts(module, local)
        shape = _shape(module, local)
        if not parts or len(shape) < 2:
            continue
        largest = max(parts, key=lambda parameter: (parameter.requires_grad, parameter.numel()))
        weight = Weight(largest, name, module, local, None, shape, computed=True)
        found |= {id(part): weight for part in parts}
    return found


def _parts(module: nn.Module, local_name: str) -> list[nn.Parameter]:
    """The parameters that a module's weight is computed from."""
    lists = getattr(module, "parametrizations", None)
    if isinstance(lists, nn.ModuleDict) and local_name in lists:
        return list(lists[local_name].parameters())
    return [p for name, p in module._parameters.items() if p is not None and name.startswith(f"{local_name}_")]


def _shape(module: nn.Module, local_name: str) -> torch.Size:
    """The shape of a computed weight; computing it moves neither random state nor what a spectral norm remembers."""
    lists = getattr(module, "parametrizations", None)
    if not (isinstance(lists, nn.ModuleDict) and local_name in lists):
        return torch.Size(vars(module)[local_name].shape)
    computing = lists[local_name]
    assert isinstance(computing, ParametrizationList)
    modes = [(part, part.training) for part in computing.modules()]
    try:
        computing.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return torch.Size(computing().shape)
    finally:
        for part, training in modes:
            part.training = training


def _refuse_lazy(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if any(nn.parameter.is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            raise AutoSpecError(
                f"layer {layer_name(name)!r} ({type(module).__name__}) has no weights before its first call; run the "
                "model on one batch, then make the recorder"
            )


def _refuse_complex(weights: list[Weight]) -> None:
    """AutoSpecError for complex weights, all of them by name."""
    names = list(dict.fromkeys(weight.name for weight in weights if weight.parameter.is_complex()))
    if names:
        raise AutoSpecError(
            f"{', '.join(map(repr, names))}: complex weights are not supported; hold the real and the imaginary part "
            "as two real parameters, or leave them out with requires_grad_(False)"
        )
