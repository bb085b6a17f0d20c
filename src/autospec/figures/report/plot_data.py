"""What the interactive plots of a run show, thinned to a bounded size, as data for the page's script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from autospec.figures.run_panels import layer_titles
from autospec.figures.spectra_panel import front_indices
from autospec.figures.style import OKABE_ITO, group_colours
from autospec.store.groups import disjoint_groups
from autospec.store.read import Spectra, load_spectra
from autospec.store.scale import scale_of, spectra_of
from autospec.store.schema import ALL, GRADIENT

MOST_LAYERS, MOST_GROUPS, MOST_INDICES, MOST_EPOCHS, FEWEST_EPOCHS = 24, 16, 32, 200, 20
MOST_CURVE_POINTS = 500
MOST_VALUES = 400_000
"""Singular values of one run: about two megabytes of the page."""
NAMES = (GRADIENT, "floor_gradient")


@dataclass(frozen=True)
class PlotData:
    """The data of a run's plots, and a sentence for each way in which they are less than the file.

    Attributes:
        content: What the script reads, as JSON can hold it.
        notes: What is left out.
    """

    content: dict[str, Any]
    notes: tuple[str, ...]


def plot_data(spectra: Spectra, most_values: int = MOST_VALUES) -> PlotData:
    """Read what the plots of a run show: scaled singular values, without those that lie below their noise floor.

    Args:
        spectra: The spectra of a run; gradients were recorded.
        most_values: About so many singular values at most.

    Returns:
        Them, layer by layer, and what was left out.
    """
    disjoint = disjoint_groups(spectra.group_names, spectra.members)
    groups = spectra.group_names[:MOST_GROUPS]
    width = min(MOST_INDICES, max((min(spectra.shapes[layer], default=1) for layer in spectra.layers), default=1))
    per_epoch = len(groups) * width
    layers = spectra.layers[: max(1, min(MOST_LAYERS, most_values // (per_epoch * FEWEST_EPOCHS)))]
    most_epochs = max(FEWEST_EPOCHS, min(MOST_EPOCHS, most_values // (per_epoch * max(len(layers), 1))))
    read = [_layer(spectra, layer, groups, most_epochs) for layer in layers]
    epochs = read[0]["epochs"] if read else []
    content = {
        "epochs": epochs,
        "groups": _groups(groups, disjoint),
        "layers": [
            {name: value for name, value in layer.items() if name not in ("epochs", "stored")} for layer in read
        ],
        "curves": _curves(spectra),
    }
    recorded = len(spectra.epochs)
    wide = any(layer["stored"] > MOST_INDICES for layer in read)
    told = {
        f"{len(epochs)} of {recorded} recorded epochs": len(epochs) < recorded,
        f"the first {len(layers)} of {len(spectra.layers)} layers": len(layers) < len(spectra.layers),
        f"the first {len(groups)} of {len(spectra.group_names)} groups": len(groups) < len(spectra.group_names),
        f"of each layer the {MOST_INDICES} largest singular values": wide,
    }
    return PlotData(content, tuple(text for text, true in told.items() if true))


def encode(values: npt.ArrayLike) -> str:
    """Return numbers as the script decodes them: float32, little-endian, in base64."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")


def _layer(spectra: Spectra, layer: str, groups: Sequence[str], most_epochs: int) -> dict[str, Any]:
    """One layer's values, read by themselves so that memory stays bounded."""
    # one epoch less, since the last is taken beside the evenly spaced ones
    loaded = load_spectra(spectra.path, [layer], most_epochs - 1, NAMES)
    values, scale = loaded[layer], scale_of(loaded[layer], loaded.weight, GRADIENT)
    raw, floor = spectra_of(values, GRADIENT), values["floor_gradient"]
    shown = (raw * scale).where(raw > floor).sel(group=list(groups)).isel(index=slice(MOST_INDICES))
    (title,) = layer_titles(loaded, [layer])
    return {
        "epochs": values["epoch"].to_numpy().tolist(),
        "stored": raw.sizes["index"],
        "name": layer,
        "maps": f"{title.inputs} → {title.outputs}",
        "width": shown.sizes["index"],
        "front": list(front_indices(shown.sizes["index"])),
        "values": encode(shown.transpose("group", "epoch", "index").to_numpy()),
        "floor": encode((floor * scale).sel(group=ALL).to_numpy()),
    }


def _groups(groups: Sequence[str], disjoint: Sequence[str]) -> list[dict[str, Any]]:
    margins = [group for group in groups if group != ALL and group not in disjoint]
    # margins are dashed, in colours that disjoint groups leave as long as there are any
    left = cycle([*OKABE_ITO[len(disjoint) :], *OKABE_ITO])
    colours = {**group_colours(disjoint), **dict(zip(margins, left, strict=False)), ALL: "#888888"}
    kinds = {ALL: "all", **dict.fromkeys(margins, "margin")}
    return [{"name": name, "colour": colours[name], "kind": kinds.get(name, "group")} for name in groups]


def _curves(spectra: Spectra) -> dict[str, Any]:
    """Loss and metric by epoch, evenly thinned."""
    training = spectra.training
    places = np.unique(np.linspace(0, max(len(training) - 1, 0), MOST_CURVE_POINTS).round().astype(int))
    shown = training.iloc[places[: len(training)]]
    names = [str(name) for name in shown.columns if shown[name].notna().any()]
    return {
        "epochs": shown.index.to_numpy().tolist(),
        "lines": [{"name": name.replace("_", " "), "values": encode(shown[name].to_numpy())} for name in names],
    }
