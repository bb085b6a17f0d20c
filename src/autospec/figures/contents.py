"""What a panel shows, as the tables it is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pandas as pd

from autospec.figures.data_facts import DataFacts
from autospec.harmless import in_picture

LONGEST_NAME = 16


def short_name(name: str) -> str:
    """Shorten a layer's name so that it fits above a small axis: which of its kind it is, and its last part.

    Args:
        name: The layer's name.

    Returns:
        The name itself where it is short.

    Example:
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
    """What the footer says of a panel's data.

    Attributes:
        run_id: The run's id.
        source: Where its data come from.
        simulated: Whether they are simulated; None where the file does not say.
        seed: The run's seed; None where the file names none.
        sizes: Subjects or samples in each group, by the group's label.
        min_group: Smaller groups are flagged.
        layers_shown: A sentence where not all layers are shown.
        epochs: The epochs that were trained; None where the file does not say.
        facts: What else must be said of a cohort's data; None for other data.
    """

    run_id: str
    source: str
    simulated: bool | None
    seed: int | None
    sizes: dict[str, float]
    min_group: int = 0
    layers_shown: str = ""
    epochs: int | None = None
    facts: DataFacts | None = None


@dataclass(frozen=True)
class LayerTitle:
    """How a layer is named in a picture: what its weight maps, inputs to outputs.

    Attributes:
        name: The layer's name.
        inputs: The columns of its weight matrix.
        outputs: The rows of its weight matrix.
    """

    name: str
    inputs: int
    outputs: int

    def __str__(self) -> str:
        return f"{in_picture(short_name(self.name))}   {self.inputs} → {self.outputs}"


@dataclass(frozen=True)
class SpectraPanel:
    """Panels A–F: spectra over training.

    Attributes:
        letter: The panel's letter.
        title: Its title.
        layers: The layers shown.
        groups: The groups drawn in front.
        group_labels: Their names for readers.
        frame: The columns of ``Spectra.to_frame``, and seed where there are runs of several.
        provenance: What the footer says.
        seeds: The number of runs.
        pairs: The pairs of groups that the figure compares elsewhere.
    """

    letter: str
    title: str
    layers: tuple[LayerTitle, ...]
    groups: tuple[str, ...]
    group_labels: dict[str, str]
    frame: pd.DataFrame
    provenance: Provenance
    seeds: int = 1
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DifferencePanel:
    """Panels G and H: differences of the pairs in front.

    Attributes:
        letter: The panel's letter.
        title: Its title.
        layers: The layers shown.
        pairs: The pairs of groups shown.
        ratios: Columns layer, group_a, group_b, epoch, index, log2_ratio (NaN where it cannot be compared).
        tests: What margins show: columns layer, group_a, group_b, per, at, n, p, median_log2_ratio.
        cosines: Columns layer, group_a, group_b, epoch, cosine, cancellation.
        provenance: What the footer says.
        paper: Whether ``tests`` are the paper's descriptive ones.
        verdicts: By layer, first and second group, the result of the primary test in a few words.
        left_out: Sentences on what is not tested, and why.
        joint: Sentences on what all groups at once and covariates gave.
        grey: A sentence on how much of the maps is grey, and why.
        pair_names: The pairs' names for readers.
        side_names: The two groups' names for readers, by pair.
        seeds: The number of runs whose tests are taken together.
        tested: Whether the legend and the footer explain tests.
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
    joint: tuple[str, ...] = ()
    grey: str = ""
    pair_names: Mapping[tuple[str, str], str] = field(default_factory=dict)
    side_names: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    seeds: int = 1
    tested: bool = True


Panel = SpectraPanel | DifferencePanel
