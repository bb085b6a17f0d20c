"""Warnings of a recorder, each said once."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from autospec.errors import AutoSpecWarning

_BETWEEN = ("autospec", "contextlib", "torch")


class Notices:
    """Says a warning the first time its key comes: what holds of one batch mostly holds of all."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def warn(self, key: str, message: str) -> None:
        """Say a message, unless another of that key was said."""
        if key not in self._said:
            self._said.add(key)
            warnings.warn(message, AutoSpecWarning, stacklevel=1 + _depth(sys._getframe()))

    def warn_of_layer(self, layer: str, message: str) -> None:
        """Say something of a layer, unless something was said of it before."""
        self.warn(layer, f"layer {layer!r}: {message}")


def _depth(frame: FrameType | None) -> int:
    """How many frames lie between one and the training loop's: a warning is to name the loop's line, not ours.

    What is found in a backward pass comes through torch, what is found at a batch's end through ``contextlib``.
    """
    depth = 0
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in (
        "autospec",
        "contextlib",
        "torch",
    ):
        frame, depth = frame.f_back, depth + 1
    return depth
