"""Which weights of a model are watched, under which names, and which module calls explain them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

import autospec.capture.rules  # noqa: F401 (registers the rules)
from autospec.capture.rules.registry import Rule, rule_of, supported_types
from autospec.errors import AutoSpecError
from autospec.layout import layer_name

Selection = Sequence[str | type[nn.Module]] | None


@dataclass(frozen=True)
class Layer:
    """One weight: the name it is stored under, its matrix's shape, and the module types that use it."""

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
    uses: tuple[Use, ...]


def watched_modules(model: nn.Module, selection: Selection = None) -> list[WatchedModule]:
    """The modules to listen to for the weights that a selection names.

    ``selection`` holds layer-name patterns (``encoder.*``; ``!decoder.*`` leaves out) and module types; None means
    every weight matrix that is trained. Vectors (biases, norms, a single token or position table) have no spectrum.
    Raises AutoSpecError for a pattern that fits nothing and for a chosen weight whose layer type has no rule.
    """
    chosen = _selector(selection)
    layers: dict[int, Layer] = {}
    watched = []
    explained: dict[int, str] = {}
    for name, module, rule in _explained_modules(model):
        uses = []
        for local_name in rule.weights(module):
            parameter = module.get_parameter(local_name)
            explained.setdefault(id(parameter), layer_name(f"{name}.{local_name}".lstrip(".")))
            layer = layers.get(id(parameter)) or Layer(explained[id(parameter)], parameter, type(module).__name__)
            if not parameter.requires_grad or not chosen(layer.name, module):
                continue
            use = layer.name if id(parameter) not in layers else f"{layer.name}/uses/{layer_name(name)}"
            layers[id(parameter)] = layer
            uses.append(Use(use, layer, local_name))
        if uses:
            _refuse_if_told(name, module, rule)
            watched.append(WatchedModule(layer_name(name), module, rule, tuple(uses)))
    _check_unexplained(model, explained, chosen)
    _check_selection(selection, sorted(explained.values()), watched)
    return watched


def trained_layers(model: nn.Module, selection: Selection = None) -> list[Layer]:
    """Every trained weight matrix that a selection names, whether or not its layer type has a rule."""
    chosen = _selector(selection)
    layers: dict[int, Layer] = {}
    names = []
    for owner_name, owner in model.named_modules():
        for local_name, parameter in owner.named_parameters(recurse=False):
            name = layer_name(f"{owner_name}.{local_name}".lstrip("."))
            if is_matrix(parameter) and parameter.requires_grad and id(parameter) not in layers:
                names.append(name)
                if chosen(name, owner):
                    layers[id(parameter)] = Layer(name, parameter, type(owner).__name__)
    _check_patterns(selection, names)
    if not layers:
        raise AutoSpecError("the model has no trained weight matrix to watch")
    return list(layers.values())


def is_matrix(parameter: nn.Parameter) -> bool:
    """Whether a parameter has a spectrum: a bias, a norm or a single row of tokens or positions has none."""
    return parameter.dim() >= 2 and min(parameter.flatten(1).shape) > 1


def _explained_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, Rule]]:
    owned: set[int] = set()
    for name, module in model.named_modules():
        rule = rule_of(module)
        if rule is None or id(module) in owned:
            continue
        owned.update(id(module.get_submodule(child)) for child in rule.owns)
        yield name, module, rule


def _refuse_if_told(name: str, module: nn.Module, rule: Rule) -> None:
    reason = rule.refuse(module)
    if reason:
        raise AutoSpecError(f"layer {layer_name(name)!r} ({type(module).__name__}): {reason}")


def _selector(selection: Selection) -> Callable[[str, nn.Module | None], bool]:
    if selection is None:
        return lambda name, module: True
    if isinstance(selection, str):
        raise AutoSpecError(f"layers={selection!r} must be a list of patterns, such as [{selection!r}]")
    types = tuple(item for item in selection if isinstance(item, type))
    wanted = [item for item in selection if isinstance(item, str) and not item.startswith("!")]
    unwanted = [item[1:] for item in selection if isinstance(item, str) and item.startswith("!")]

    def chosen(name: str, module: nn.Module | None) -> bool:
        if any(fnmatchcase(name, pattern) for pattern in unwanted):
            return False
        if not wanted and not types:
            return True
        return any(fnmatchcase(name, pattern) for pattern in wanted) or isinstance(module, types)

    return chosen


def _check_unexplained(
    model: nn.Module, explained: Collection[int], chosen: Callable[[str, nn.Module | None], bool]
) -> None:
    for owner_name, owner in model.named_modules():
        for local_name, parameter in owner.named_parameters(recurse=False):
            name = layer_name(f"{owner_name}.{local_name}".lstrip("."))
            left_out = id(parameter) in explained or not parameter.requires_grad or not chosen(name, owner)
            if left_out or not is_matrix(parameter):
                continue
            raise AutoSpecError(
                f"layer {name!r} is a weight of {type(owner).__name__}, for which there is no rule. Supported: "
                f"{', '.join(supported_types())}. Register one with autospec.register_rule, "
                f"or leave it out with layers=['!{name}']"
            )


def _check_selection(selection: Selection, names: Sequence[str], watched: list[WatchedModule]) -> None:
    _check_patterns(selection, names)
    for item in selection or ():
        if isinstance(item, type) and not any(isinstance(entry.module, item) for entry in watched):
            raise AutoSpecError(f"layers: the model has no trained {item.__name__}")
    if not watched:
        raise AutoSpecError("the model has no trained weight matrix to watch")


def _check_patterns(selection: Selection, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise AutoSpecError(f"two weights of the model would both be stored as {twice!r}")
    wanted = [item for item in selection or () if isinstance(item, str) and not item.startswith("!")]
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise AutoSpecError(f"layers: no weight matrix is named like {pattern!r}; there are {', '.join(names)}")
