"""The engine that listens to a model, and another like it that listens to the model's float64 copy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from autospec.capture.engines import Sinks, layer_attributes, listening_engine
from autospec.capture.fast import FastEngine
from autospec.capture.hooks import HookListener, is_compiled
from autospec.capture.layers import Layer, Use
from autospec.capture.row_owners import RowOwners
from autospec.capture.selection import Selection
from autospec.recording.epoch_sums import EpochSums
from autospec.recording.open_record import OpenRecord
from autospec.spectra.factors import GradientFactors
from autospec.spectra.settings import RecorderSettings


class Listening:
    """An engine on a model.

    Args:
        model: that trains.
        settings: name the engine, and how often it proves what it rests on.
        selection: which weights are watched.
        sinks: who takes what the engine finds.

    Attributes:
        model: as given.
        name: the engine's, as it was asked for.
        engine: the engine itself.
        hooks: the engine where it is the one of hooks, else None.
        uses: every use of a watched weight, frozen ones too.
        is_compiled: whether the model is compiled, so that hooks may come too late.
    """

    def __init__(self, model: nn.Module, settings: RecorderSettings, selection: Selection, sinks: Sinks) -> None:
        self.model = model
        self.name = settings.engine
        self.engine, self.uses = listening_engine(self.name, model, selection, sinks, settings.check_every)
        self.hooks = self.engine if isinstance(self.engine, HookListener) else None
        self.is_compiled = is_compiled(model)
        self._selection = selection

    @property
    def watched(self) -> list[Layer]:
        """Every watched weight once, in the model's order."""
        return list({use.layer.name: use.layer for use in self.uses}.values())

    @property
    def trained(self) -> list[Layer]:
        """Of the watched weights those that train now: one may be frozen or unfrozen meanwhile."""
        return [layer for layer in self.watched if layer.is_trained]

    @property
    def way(self) -> str | None:
        """The way that the fast engine has chosen, once it has; None with the other engines."""
        return self.engine.chosen if isinstance(self.engine, FastEngine) else None

    def attributes(self, layer: Layer, is_measured: bool) -> dict[str, Any]:
        """What the file says of a layer; ``is_measured`` tells whether its noise floor is."""
        return layer_attributes(layer, self.name, is_measured)

    @contextlib.contextmanager
    def beside(self, record: OpenRecord, model: nn.Module, sums: EpochSums) -> Iterator[None]:
        """A context in which the backward passes of a copy of the model are added to ``sums``, and to nothing else.

        Args:
            record: whose open batch the copy repeats.
            model: the copy.
            sums: in float64.
        """
        assert record.batch is not None
        assert record.batch.groups is not None
        groups = record.batch.groups

        def add(use: Use, factors: GradientFactors, owners: RowOwners) -> None:
            sums.add(use, factors.scaled(1 / record.loss_scale), groups, owners)

        def add_matrices(layer: Layer, gradients: Tensor, eps: float) -> None:
            sums.add_matrices(layer, gradients / record.loss_scale, eps)

        sinks = Sinks(add, add_matrices, lambda way: None)
        # the fast engine's copy must go the same way, or what differs would be more than rounding
        engine, _ = listening_engine(self.way or self.name, model, self._selection, sinks, None)
        if isinstance(engine, HookListener) and self.hooks is not None:
            engine.borrow_traces(self.hooks)
        with engine.listening(groups):
            yield
