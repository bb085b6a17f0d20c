"""One table of all layers of a model: how the rows of each are traced, how it is recorded, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from autospec.capture.engines import split_layers
from autospec.capture.hooks import HookListener, is_compiled
from autospec.capture.kept_state import attributes_kept
from autospec.capture.layers import watched_modules
from autospec.capture.pieces import sharded_modules
from autospec.capture.run_again import without_rules
from autospec.capture.trace import Traced
from autospec.capture.trace_graph import left_as_it_was
from autospec.capture.trace_layout import NOT_REACHED, SHARED, RowTrace
from autospec.capture.weights import Weight, left_out, weights_of
from autospec.errors import AutoSpecError
from autospec.spectra.groups import SampleGroups
from autospec.store.schema import layer_name

_RECORDED = {SHARED: "for all samples together", NOT_REACHED: "as NaN"}


@dataclass(frozen=True)
class TableRow:
    """One layer: its name, type and matrix, how its rows are traced, how it is recorded, and why not."""

    name: str
    kind: str
    shape: str
    traced: str
    recorded: str
    left_out: str


@dataclass(frozen=True)
class LayerTable:
    """All layers of a model, one row each; ``print`` shows them.

    Attributes:
        rows: the layers, in the model's order.
        read: which dimension of what the model returned was taken for the samples.
    """

    rows: tuple[TableRow, ...]
    read: str

    def __getitem__(self, name: str) -> TableRow:
        return next(row for row in self.rows if row.name == name)

    def __iter__(self) -> Iterator[TableRow]:
        return iter(self.rows)

    def __str__(self) -> str:
        heads = ("layer", "type", "matrix", "traced", "recorded", "left out because")
        lines = [heads, *((r.name, r.kind, r.shape, r.traced, r.recorded, r.left_out) for r in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([*text, f"samples: {self.read}"])


def check(model: nn.Module, batch: Any) -> LayerTable:
    """One table of all layers of a model, without a recorder: what would be recorded, how, and what not.

    Args:
        model: the model.
        batch: what it is called with: a tensor, a tuple of arguments, or a dict of keywords.

    Returns:
        The table; ``print`` shows it.

    Raises:
        AutoSpecError: where the batch holds no tensor, or a single sample.
    """
    return layer_table(model, batch)


def layer_table(
    model: nn.Module,
    batch: Any,
    watched: set[str] | None = None,
    engine: str = "hooks",
    engines: Mapping[str, str] | None = None,
) -> LayerTable:
    """The table, with what ``watched`` does not hold left out; None is everything that can be recorded.

    ``engine`` is the recorder's, ``engines`` are those of layers by patterns.
    """
    if sharded_modules(model):
        raise AutoSpecError(
            "check(...) makes passes that fully_shard does not see; check the model before it is sharded"
        )
    split = split_layers(model, engines) if engines else []
    uses = without_rules(model, weights_of(model), split)
    weights = {weight.name: weight for weight in reversed(uses)}
    first_names = {weight.key: weight.name for weight in reversed(uses)}
    listed = [name for name, weight in weights.items() if not weight.part_of or name in (watched or ())][::-1]
    stored = [name for name in listed if first_names[weights[name].key] == name]
    traced = _traced(model, batch, [name for name in stored if not _obstacle(weights[name])], split)
    rows = []
    for name in listed:
        weight = weights[name]
        reason = _obstacle(weight)
        if not reason and name not in stored:
            reason = f"the same weight as {first_names[weight.key]!r}, recorded there"
        elif not reason and watched is not None and name not in watched:
            reason = "not chosen by layers=..."
        if not reason and traced is not None and traced.refusal:
            reason = "its rows cannot be traced to samples"
        how = "" if _obstacle(weight) or (traced and traced.refusal) else _how(traced, name)
        recorded = "" if reason else _RECORDED.get(how, _by_group(weight, "per_group" if name in split else engine))
        rows.append(TableRow(name, type(weight.module).__name__, _text(weight.shape), how, recorded, reason))
    parameters = {layer_name(name): parameter for name, parameter in model.named_parameters()}
    for name, reason in left_out(model).items():
        kind = type(model.get_submodule(name.rpartition(".")[0])).__name__
        rows.append(TableRow(name, kind, _text(parameters[name].shape), "", "", reason))
    read = "" if traced is None else traced.read or traced.refusal
    return LayerTable(tuple(rows), read)


def _by_group(weight: Weight, engine: str) -> str:
    """How a weight's group gradients are recorded, in words."""
    if engine != "hooks":
        return f"by group (gradients), engine {engine}"
    source = "" if weight.rule is not None else ", from calls of functions"
    return f"by group{source}{', as computed from its parameters' * weight.computed}"


def _obstacle(weight: Weight) -> str:
    """Why a weight cannot be recorded, or ""."""
    if not weight.is_trained:
        return "frozen"
    refusal = None if weight.rule is None else weight.rule.refuse(weight.module)
    return refusal or ""


def _traced(model: nn.Module, batch: Any, names: list[str], split: list[str]) -> Traced | None:
    """Run the model once on a batch, and trace the rows of some layers."""
    if not names:
        return None
    if is_compiled(model):
        raise AutoSpecError("check runs the model without torch.compile; give it the model as it was before")
    samples = _samples(batch)
    listener = HookListener(model, watched_modules(model, names, split), lambda use, factors, owners: None)
    labels = torch.zeros(samples, dtype=torch.int64)
    with (
        listener.listening(SampleGroups.of(labels, 1)),
        torch.enable_grad(),
        left_as_it_was(model, ()),
        attributes_kept(model),
    ):
        if isinstance(batch, Mapping):
            model(**batch)
        elif isinstance(batch, (tuple, list)):
            model(*batch)
        else:
            model(batch)
    return listener.tracer.last


def _samples(batch: Any) -> int:
    tensors = tree_flatten(dict(batch) if isinstance(batch, Mapping) else batch)[0]
    lengths = [len(leaf) for leaf in tensors if isinstance(leaf, Tensor) and leaf.dim()]
    if not lengths:
        raise AutoSpecError("batch must hold at least one tensor with samples for its first dimension")
    if lengths[0] < 2:
        raise AutoSpecError("batch must hold at least two samples, or there is nothing to tell apart")
    return lengths[0]


def _how(traced: Traced | None, layer: str) -> str:
    """How the rows of all uses of a layer are traced."""
    parts: dict[str, RowTrace] = {}
    for (_, use, _), trace in (traced.parts if traced else {}).items():
        if use == layer or use.startswith(f"{layer}/uses/"):
            parts.setdefault(trace.how, trace)
    if len(parts) > 1:
        parts.pop(NOT_REACHED, None)
    return ", ".join(parts) or NOT_REACHED


def _text(shape: torch.Size) -> str:
    """The shape of a weight's matrix, or the length of a vector."""
    if len(shape) < 2:
        return str(shape[0]) if shape else ""
    return f"{shape[0]} x {math.prod(shape[1:])}"
