"""Choosing layers of a file by name or pattern."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from autospec.errors import AutoSpecError

if TYPE_CHECKING:
    from autospec.store.read import Spectra


def layers_by_name(spectra: Spectra, names: str | Sequence[str] | None) -> list[str]:
    """List the layers that names or patterns mean.

    Args:
        spectra: The spectra of a run.
        names: One name or pattern (``encoder.*``) or several; None means all layers.

    Returns:
        Names of layers, in the model's order.

    Raises:
        AutoSpecError: A name or pattern fits no layer.
    """
    patterns = ["*"] if names is None else [names] if isinstance(names, str) else list(names)
    for pattern in patterns:
        if not any(_fits(layer, pattern) for layer in spectra.layers):
            raise AutoSpecError(
                f"{spectra.where} has no layer {pattern!r}; it has {', '.join(spectra.layers) or 'none'}"
            )
    return [layer for layer in spectra.layers if any(_fits(layer, pattern) for pattern in patterns)]


def _fits(layer: str, pattern: str) -> bool:
    """Whether a layer is named, or fits a pattern; a name may itself have a pattern's characters."""
    return layer == pattern or fnmatchcase(layer, pattern)
