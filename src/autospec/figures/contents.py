"""What a panel shows, as the tables it is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pandas as pd

LONGEST_NAME = 16


def short_name(name: str) -> str:
    """A layer's name as it fits above a small axis: which of its kind it is, and its last part.

    >>> short_name("encoder.0"), short_name("recurrent.weight_hh_l0"), short_name("a.layer.1.attention.self.query")
    ('encoder.0', 'weight_hh_l0', 'layer.1…query')
    """
    if len(name) <= LONGEST_NAME:
        return name
    parts = name.split(".")
    numbered = next((f"{a}.{b}…" for a, b in pairwise(parts[:-1]) if b.isdigit()), "")
    return numbered + parts[-1]


@dataclass(frozen=True)
class Provenance:
    """What the footer says of a panel's data."""

    run_id: str
    source: str
    simulated: bool
    seed: int | None
    sizes: dict[str, float]
    min_group: int = 0
    layers_shown: str = ""


@dataclass(frozen=True)
class LayerTitle:
    """How a layer is named in a picture: what its weight maps, inputs to outputs."""

    name: str
    inputs: int
    outputs: int

    def __str__(self) -> str:
        return f"{short_name(self.name)}   {self.inputs} → {self.outputs}"


@dataclass(frozen=True)
class SpectraPanel:
    """Panels A–F: ``frame`` has the columns of ``Spectra.to_frame``, and seed where there are runs of several.

    ``group_labels`` are for readers.
    """

    letter: str
    title: str
    layers: tuple[LayerTitle, ...]
    groups: tuple[str, ...]
    group_labels: dict[str, str]
    frame: pd.DataFrame
    provenance: Provenance
    seeds: int = 1


@dataclass(frozen=True)
class DifferencePanel:
    """Panels G and H: differences of the pairs in front.

    ``ratios``: layer, group_a, group_b, epoch, index, log2_ratio (NaN where it cannot be compared).
    ``tests``: what is drawn on the margins: layer, group_a, group_b, per, at, n, p, median_log2_ratio, of the paper's
    tests where ``paper``. ``cosines``: layer, group_a, group_b, epoch, cosine, cancellation. ``verdicts`` say in a few
    words what the test of a layer and pair found; ``left_out`` what is not shown or not tested, and why. ``pair_names``
    are for readers.
    """

    letter: str
    title: str
    layers: tuple[LayerTitle, ...]
    pairs: tuple[tuple[str, str], ...]
    ratios: pd.DataFrame
    tests: pd.DataFrame
    cosines: pd.DataFrame
    provenance: Provenance
    paper: bool = True
    verdicts: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    pair_names: Mapping[tuple[str, str], str] = field(default_factory=dict)
    seeds: int = 1
