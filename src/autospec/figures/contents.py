"""What a panel shows, as the tables it is drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


LONGEST_NAME = 22
"""A layer's name is cut at its beginning where it is longer."""


@dataclass(frozen=True)
class Provenance:
    """What the footer says of a panel's data."""

    run_id: str
    source: str
    simulated: bool
    seed: int
    sizes: dict[str, float]
    layers_shown: str = ""


@dataclass(frozen=True)
class LayerTitle:
    """How a layer is named in a picture: what its weight maps, inputs to outputs."""

    name: str
    inputs: int
    outputs: int

    def __str__(self) -> str:
        name = self.name if len(self.name) <= LONGEST_NAME else "…" + self.name[1 - LONGEST_NAME :]
        return f"{name}   {self.inputs} → {self.outputs}"


@dataclass(frozen=True)
class SpectraPanel:
    """Panels A–F: ``frame`` has the columns of ``Spectra.to_frame``; ``group_labels`` are for readers."""

    letter: str
    title: str
    layers: tuple[LayerTitle, ...]
    groups: tuple[str, ...]
    group_labels: dict[str, str]
    frame: pd.DataFrame
    provenance: Provenance


@dataclass(frozen=True)
class DifferencePanel:
    """Panels G and H: differences of the pairs in front.

    ``ratios``: layer, group_a, group_b, epoch, index, log2_ratio (NaN where it cannot be compared).
    ``tests``: the rows of the table of tests that are drawn on the margins. ``cosines``: layer, group_a, group_b,
    epoch, cosine, cancellation.
    """

    letter: str
    title: str
    layers: tuple[LayerTitle, ...]
    pairs: tuple[tuple[str, str], ...]
    ratios: pd.DataFrame
    tests: pd.DataFrame
    cosines: pd.DataFrame
    provenance: Provenance
