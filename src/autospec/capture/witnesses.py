"""Modules that are not recorded but help to trace rows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from autospec.capture.layers import Layer, Use, WatchedModule
from autospec.capture.weights import Weight, weights_of


def witnesses(model: nn.Module, watched: Sequence[WatchedModule]) -> list[WatchedModule]:
    """Modules that are not recorded but whose rows may tell which dimension of the model's output is the sample."""
    there = {id(entry.module) for entry in watched}
    by_module: dict[int, list[Weight]] = {}
    for weight in weights_of(model):
        if weight.rule is not None and id(weight.module) not in there and not weight.rule.refuse(weight.module):
            by_module.setdefault(id(weight.module), []).append(weight)
    made = []
    for weights in by_module.values():
        name, module, rule = weights[0].module_name, weights[0].module, weights[0].rule
        uses = tuple(Use(w.name, Layer(w.name, w.parameter, type(module).__name__), w.local_name) for w in weights)
        assert rule is not None
        made.append(WatchedModule(f"witness {name}", module, rule, uses, is_witness=True))
    return made
