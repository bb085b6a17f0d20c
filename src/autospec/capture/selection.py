"""Which weights a user's patterns and module types choose."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from autospec.capture.weights import Weight
from autospec.errors import AutoSpecError
from autospec.store.schema import layer_name

Selection = Sequence[str | type[nn.Module]] | None


def chosen_weights(model: nn.Module, found: Sequence[Weight], selection: Selection) -> set[int]:
    """The ids of the trained weights that a selection names: all uses of a weight together.

    Raises AutoSpecError for a selection that names nothing, and for a pattern or type in it that fits nothing.
    """
    trained = [weight for weight in found if weight.parameter.requires_grad]
    names = _distinct_names(found)
    types, wanted, unwanted = _sorted_out(selection)
    for pattern in wanted:
        if not any(fnmatchcase(names[id(weight.parameter)], pattern) for weight in trained):
            there = ", ".join(dict.fromkeys(names[id(weight.parameter)] for weight in trained))
            raise AutoSpecError(f"layers: no trained weight matrix is named like {pattern!r}; there are {there}")
    for pattern in unwanted:
        if not any(
            fnmatchcase(layer_name(name), pattern) for name, _ in model.named_parameters(remove_duplicate=False)
        ):
            raise AutoSpecError(f"layers: nothing to leave out is named like {pattern!r}; there are {_all(names)}")
    for chosen_type in types:
        if not any(isinstance(weight.module, chosen_type) for weight in trained):
            raise AutoSpecError(f"layers: the model has no trained {chosen_type.__name__}")

    def fits(weight: Weight) -> bool:
        name = names[id(weight.parameter)]
        if any(fnmatchcase(name, pattern) for pattern in unwanted):
            return False
        everything = not wanted and not types
        return everything or any(fnmatchcase(name, pattern) for pattern in wanted) or isinstance(weight.module, types)

    chosen = {id(weight.parameter) for weight in trained if fits(weight)}
    if not chosen:
        raise AutoSpecError("the model has no trained weight matrix to watch")
    return chosen


def _sorted_out(selection: Selection) -> tuple[tuple[type[nn.Module], ...], list[str], list[str]]:
    """Module types, patterns of what is wanted, and of what is left out."""
    if selection is None:
        return (), [], []
    if isinstance(selection, str):
        raise AutoSpecError(f"layers={selection!r} must be a list of patterns, such as [{selection!r}]")
    if not selection:
        raise AutoSpecError("layers=[] names nothing; leave it out (None) for every weight matrix")
    for item in selection:
        if not (isinstance(item, str) or (isinstance(item, type) and issubclass(item, nn.Module))):
            raise AutoSpecError(f"layers: {item!r} is neither a name pattern nor a module type")
    types = tuple(item for item in selection if isinstance(item, type))
    patterns = [item for item in selection if isinstance(item, str)]
    return (
        types,
        [pattern for pattern in patterns if not pattern.startswith("!")],
        [pattern[1:] for pattern in patterns if pattern.startswith("!")],
    )


def _distinct_names(found: Sequence[Weight]) -> dict[int, str]:
    """The name of each weight, by the id of its parameter: that of its first use."""
    names: dict[int, str] = {}
    for weight in found:
        names.setdefault(id(weight.parameter), weight.name)
    for name in names.values():
        if list(names.values()).count(name) > 1:
            raise AutoSpecError(f"two weights of the model would both be stored as {name!r}")
    return names


def _all(names: dict[int, str]) -> str:
    return ", ".join(names.values())
