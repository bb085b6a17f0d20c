"""What arrives at whole weights that modules hold in pieces between their passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from autospec.capture.layers import WatchedModule, held_parameter
from autospec.capture.leaf_gradients import Arrival, shown
from autospec.capture.pieces import is_piece
from autospec.errors import AutoSpecError


class PieceArrivals:
    """Shows the gradients of whole weights, which are met where their module is called.

    Args:
        arrive: takes a layer and the gradient that is about to be added to its whole weight's.
    """

    def __init__(self, arrive: Arrival) -> None:
        self._arrive = arrive
        self._met: dict[int, tuple[Node, RemovableHandle]] = {}

    def meeting(self, entry: WatchedModule, takes_calls: Callable[[], bool]) -> Callable[..., None]:
        """A forward pre-hook for a module, which comes after the one that makes its weights whole."""

        def meet(module: nn.Module, inputs: Any, keywords: Any) -> None:
            if takes_calls():
                self._meet(entry)

        return meet

    def _meet(self, entry: WatchedModule) -> None:
        for use in entry.uses:
            if not (use.layer.is_sharded and use.layer.is_trained):
                continue
            weight = held_parameter(entry, use)
            if weight is None or is_piece(weight):
                raise AutoSpecError(
                    f"layer {use.layer.name!r}: its weight is in pieces while its module runs (tensor parallel), so "
                    "that no process sees the whole gradient; shard it with fully_shard alone"
                )
            if id(weight) not in self._met:
                self._met[id(weight)] = shown(weight, use.layer, self._arrive)

    def forget(self) -> None:
        """Show nothing more."""
        for _, handle in self._met.values():
            handle.remove()
        self._met.clear()
