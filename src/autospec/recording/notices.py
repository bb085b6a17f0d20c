"""Warnings of a recorder, each said once."""

from __future__ import annotations

import warnings

from autospec.errors import AutoSpecWarning


class Notices:
    """Says a warning the first time its key comes: what holds of one batch mostly holds of all."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def warn(self, key: str, message: str) -> None:
        """Say a message, unless another of that key was said."""
        if key not in self._said:
            self._said.add(key)
            warnings.warn(message, AutoSpecWarning, stacklevel=6)

    def warn_of_layer(self, layer: str, message: str) -> None:
        """Say something of a layer, unless something was said of it before."""
        self.warn(layer, f"layer {layer!r}: {message}")
