"""The engines that take a model's group gradients, and how one is chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from autospec.capture.fast import FastEngine, Way
from autospec.capture.fused import FusedEngine
from autospec.capture.hooks import HookListener, Sink
from autospec.capture.layers import Layer, Use, trained_layers, watched_modules
from autospec.capture.per_group import GroupGradients, PerGroupEngine
from autospec.capture.selection import Selection
from autospec.capture.weights import weights_of
from autospec.errors import AutoSpecError
from autospec.spectra.settings import FORMER_ENGINES
from autospec.store.schema import GRADIENT

log = logging.getLogger(__name__)

Engine = HookListener | PerGroupEngine | FusedEngine | FastEngine
HOOKS, FAST, PER_GROUP, PASSES, FUSED = "hooks", "fast", "per_group", "passes", "fused"

_MEASURED = "|float32 - float64| where floor/measured is 1, 3 times what the last 3 say where 0, elsewhere "
"""What stands before the formula where the floor is measured."""


def engine_name(engine: str) -> str:
    """The name that an engine has today."""
    if engine in FORMER_ENGINES:
        log.info("engine=%r is now called %r", engine, FORMER_ENGINES[engine])
    return FORMER_ENGINES.get(engine, engine)


def check_engine(engine: str, statistics: Sequence[str], check_every: int | None) -> None:
    """AutoSpecError for an engine that cannot give the statistics, or make the comparisons, that are asked of it."""
    name = engine_name(engine)
    if name != HOOKS and list(statistics) != [GRADIENT]:
        raise AutoSpecError(f"engine={engine!r} knows gradients only, not statistics={list(statistics)}")
    if check_every is not None and name == HOOKS:
        raise AutoSpecError(f"check_every={check_every}: is for every engine but 'hooks'")


@dataclass(frozen=True)
class Sinks:
    """Who takes what an engine finds: factors, gradients that are split already, and the way that was chosen."""

    factors: Sink
    gradients: GroupGradients
    way: Callable[[str], None]


def by_layer(engine: str | Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """The engine that listens, and which of the layers, by patterns of their names, are had in which way.

    Raises:
        AutoSpecError: for an engine that runs the whole model and cannot have a layer of its own.
    """
    if not isinstance(engine, Mapping):
        return engine, {}
    for pattern, each in engine.items():
        if engine_name(each) not in (HOOKS, PER_GROUP):
            raise AutoSpecError(
                f"engine={{{pattern!r}: {each!r}}}: by layer there are {HOOKS!r} and {PER_GROUP!r}; the others run the "
                "whole model, so give one of them alone"
            )
    return HOOKS, engine


def split_layers(model: nn.Module, engines: Mapping[str, str]) -> list[str]:
    """The names of the layers that are run again for each group; the first pattern that fits a layer decides."""
    names = list(dict.fromkeys(weight.name for weight in weights_of(model)))
    for pattern in engines:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise AutoSpecError(f"engine: no weight matrix is named like {pattern!r}; there are {', '.join(names)}")
    fitting = {name: [engines[pattern] for pattern in engines if fnmatchcase(name, pattern)] for name in names}
    return [name for name, ways in fitting.items() if ways and engine_name(ways[0]) == PER_GROUP]


def listening_engine(
    engine: str,
    model: nn.Module,
    selection: Selection,
    sinks: Sinks,
    check_every: int | None,
    engines: Mapping[str, str] | None = None,
) -> tuple[Engine, list[Use]]:
    """An engine for the chosen weights of a model, and every use of them that it tells apart."""
    name = engine_name(engine)
    if name == HOOKS:
        watched = watched_modules(model, selection, split_layers(model, engines) if engines else ())
        return HookListener(model, watched, sinks.factors), [use for module in watched for use in module.uses]
    chosen = trained_layers(model, selection)
    uses = [Use(layer.name, layer, layer.name) for layer in chosen]
    if name != FAST:
        return _way(name, model, selection, chosen, sinks, check_every), uses
    ways: dict[str, Way] = {}
    reasons: dict[str, str] = {}
    for each in (PER_GROUP, PASSES, FUSED):
        try:
            ways[each] = _way(each, model, selection, chosen, sinks, check_every)
        except AutoSpecError as error:
            reasons[each] = str(error)
    return FastEngine(ways, reasons, sinks.way), uses


def _way(
    name: str, model: nn.Module, selection: Selection, layers: Sequence[Layer], sinks: Sinks, check_every: int | None
) -> Way:
    if name != FUSED:
        return PerGroupEngine(model, layers, sinks.gradients, check_every, name)
    watched = watched_modules(model, selection)
    trained = [replace(entry, uses=tuple(use for use in entry.uses if use.layer.is_trained)) for entry in watched]
    return FusedEngine(model, [entry for entry in trained if entry.uses], sinks.gradients, check_every)


def layer_attributes(layer: Layer, engine: str, measured: bool) -> dict[str, Any]:
    """What the file says of a layer; ``measured`` tells whether its noise floor is."""
    has_norms = engine == HOOKS and not layer.is_split
    floor = "eps sqrt(min(shape)) |A| |D|" if has_norms else "eps max(shape) s1"
    attributes = {"shape": layer.shape, "kind": layer.kind, "gradient_floor": _MEASURED * measured + floor}
    if layer.is_split:
        attributes["engine"] = PER_GROUP
    if layer.computed:
        attributes["weight"] = "computed from parameters: the gradient is that of what the layer multiplies by"
    return attributes
