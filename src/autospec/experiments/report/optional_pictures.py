"""Pictures of what a run recorded on request: spectra along the tied dimension, ranks, and subspaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autospec.figures.optional_statistics import draw_ranks, draw_subspaces, draw_tied
from autospec.store.groups import Pair
from autospec.store.read import Spectra

if TYPE_CHECKING:
    import xarray as xr


def optional_pictures(
    letter: str, spectra: Spectra, pairs: Sequence[Pair], path_of: Callable[[str], Path]
) -> list[Callable[[], None]]:
    """Take what was recorded on request out of a run's spectra.

    Args:
        letter: The panel's letter.
        spectra: Its run.
        pairs: The pairs of groups in front.
        path_of: The file of a picture, by what it is called.

    Returns:
        A function for each picture, which draws it; it holds no more than what is drawn.
    """
    layers = [(name, spectra[name]) for name in spectra.layers]
    footer = f"{spectra.run_id}{' (SIMULATED DATA)' if spectra.simulated else ''}"
    pictures: list[Callable[[], None]] = []
    # of many epochs and positions only the last epoch is drawn
    tied = [
        (name, layer[["tied_gradient"]].isel(epoch=[-1]))
        for name, layer in layers
        if layer.sizes.get("position", 1) > 1
    ]
    if tied:
        pictures.append(partial(draw_tied, tied, footer, path_of(f"{letter}_tied")))
    ranks = [(name, _some(layer, "rank_")) for name, layer in layers if "rank_bound" in layer]
    if ranks:
        pictures.append(partial(draw_ranks, ranks, footer, path_of(f"{letter}_rank")))
    subspaces = [(name, _some(layer, "subspace_")) for name, layer in layers if "subspace_groups" in layer]
    if subspaces:
        pictures.append(partial(draw_subspaces, subspaces, pairs, footer, path_of(f"{letter}_subspace")))
    return pictures


def _some(layer: xr.Dataset, prefix: str) -> xr.Dataset:
    """The statistics whose names begin alike."""
    return layer[[str(name) for name in layer.data_vars if str(name).startswith(prefix)]]
