"""The two engines that take a model's group gradients, and how one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from autospec.capture.hooks import HookListener, Sink
from autospec.capture.layers import Layer, Use, trained_layers, watched_modules
from autospec.capture.per_group import GroupGradients, PerGroupEngine
from autospec.capture.selection import Selection
from autospec.errors import AutoSpecError
from autospec.store.schema import GRADIENT

Engine = HookListener | PerGroupEngine

_FLOORS = {"hooks": "eps sqrt(min(shape)) |A| |D|", "aliased": "eps max(shape) s1"}
"""The formula of a gradient's noise floor, by the engine's name."""

_MEASURED = "|float32 - float64| where floor/measured is 1, twice its last ratio to the formula where 0, elsewhere "
"""What stands before the formula where the floor is measured."""


def check_engine(engine: str, statistics: Sequence[str], check_every: int | None) -> None:
    """AutoSpecError for an engine that cannot give the statistics, or make the comparisons, that are asked of it."""
    if engine == "aliased" and list(statistics) != [GRADIENT]:
        raise AutoSpecError(f"engine='aliased' knows gradients only, not statistics={list(statistics)}")
    if check_every is not None and engine != "aliased":
        raise AutoSpecError(f"check_every={check_every}: is for engine='aliased' alone")


def listening_engine(
    engine: str,
    model: nn.Module,
    selection: Selection,
    take_factors: Sink,
    take_gradients: GroupGradients,
    check_every: int | None,
) -> tuple[Engine, list[Use]]:
    """An engine for the chosen weights of a model, and every use of them that it tells apart."""
    if engine == "aliased":
        chosen = trained_layers(model, selection)
        uses = [Use(layer.name, layer, layer.name) for layer in chosen]
        return PerGroupEngine(model, chosen, take_gradients, check_every), uses
    watched = watched_modules(model, selection)
    return HookListener(model, watched, take_factors), [use for module in watched for use in module.uses]


def layer_attributes(layer: Layer, engine: str, measured: bool) -> dict[str, Any]:
    """What the file says of a layer; ``measured`` tells whether its noise floor is."""
    attributes = {
        "shape": layer.shape,
        "kind": layer.kind,
        "gradient_floor": _MEASURED * measured + _FLOORS[engine],
    }
    if layer.computed:
        attributes["weight"] = "computed from parameters: the gradient is that of what the layer multiplies by"
    return attributes
