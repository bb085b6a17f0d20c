"""Which weights a user's patterns and module types choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from autospec.capture.weights import Weight
from autospec.errors import AutoSpecError
from autospec.store.schema import layer_name

Selection = Sequence[str | type[nn.Module]] | None


def chosen_weights(model: nn.Module, weights: Sequence[Weight], selection: Selection) -> set[tuple[int, bool]]:
    """The weights that a selection names: all uses of a weight together.

    Args:
        model: the model.
        weights: every use of every weight matrix of it, trained or frozen.
        selection: name patterns and module types; a pattern after ``!`` leaves out; None is every weight matrix. The
            parameters that a layer's weight is computed from are chosen by a pattern of their own name alone.

    Returns:
        The keys of the chosen weights.

    Raises:
        AutoSpecError: for a selection that names nothing, for a pattern or type in it that fits nothing, and for a
            model in which nothing that is chosen trains.
    """
    names = _distinct_names(weights)
    types, wanted, unwanted = _sorted_out(selection)
    for pattern in wanted:
        if not any(fnmatchcase(names[weight.key], pattern) for weight in weights):
            there = ", ".join(dict.fromkeys(names[weight.key] for weight in weights))
            raise AutoSpecError(f"layers: no trained weight matrix is named like {pattern!r}; there are {there}")
    for pattern in unwanted:
        parameters = [layer_name(name) for name, _ in model.named_parameters(remove_duplicate=False)]
        if not any(fnmatchcase(name, pattern) for name in (*parameters, *names.values())):
            raise AutoSpecError(f"layers: nothing to leave out is named like {pattern!r}; there are {_all(names)}")
    for chosen_type in types:
        if not any(isinstance(weight.module, chosen_type) for weight in weights):
            raise AutoSpecError(f"layers: the model has no trained {chosen_type.__name__}")

    def fits(weight: Weight) -> bool:
        name = names[weight.key]
        if any(fnmatchcase(name, pattern) for pattern in unwanted):
            return False
        if any(fnmatchcase(name, pattern) for pattern in wanted):
            return True
        everything = not wanted and not types
        return not weight.part_of and (everything or isinstance(weight.module, types))

    chosen = {weight.key for weight in weights if fits(weight)}
    if not any(weight.is_trained for weight in weights if weight.key in chosen):
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


def _distinct_names(weights: Sequence[Weight]) -> dict[tuple[int, bool], str]:
    """The name of each weight, by its key: that of its first use."""
    names: dict[tuple[int, bool], str] = {}
    for weight in weights:
        names.setdefault(weight.key, weight.name)
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise AutoSpecError(f"two weights of the model would both be stored as {name!r}")
    return names


def _all(names: dict[tuple[int, bool], str]) -> str:
    return ", ".join(names.values())
