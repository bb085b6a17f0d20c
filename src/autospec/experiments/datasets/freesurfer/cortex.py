"""Cortical regions, and which kind of measure a column of a FreeSurfer table holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from autospec.cohorts.exclusions import Account, list_names
from autospec.experiments.datasets.freesurfer.volumes import COMPOSITES, OLD_NAMES, STRUCTURES

REGIONS = (
    "bankssts", "caudalanteriorcingulate", "caudalmiddlefrontal", "cuneus", "entorhinal", "fusiform",
    "inferiorparietal", "inferiortemporal", "isthmuscingulate", "lateraloccipital", "lateralorbitofrontal", "lingual",
    "medialorbitofrontal", "middletemporal", "parahippocampal", "paracentral", "parsopercularis", "parsorbitalis",
    "parstriangularis", "pericalcarine", "postcentral", "posteriorcingulate", "precentral", "precuneus",
    "rostralanteriorcingulate", "rostralmiddlefrontal", "superiorfrontal", "superiorparietal", "superiortemporal",
    "supramarginal", "frontalpole", "temporalpole", "transversetemporal", "insula",
)  # fmt: skip
"""The regions of each hemisphere in the ``aparc`` atlas (Desikan et al. 2006, NeuroImage 31:968), in its order."""

CORTEX_FEATURES = {
    f"aparc_{measure}": tuple(f"{side}_{region}_{measure}" for side in ("lh", "rh") for region in REGIONS)
    for measure in ("thickness", "area", "volume")
}

KINDS = {
    "_thicknessstd": "SD of thickness (mm)",
    "_thickness": "thickness (mm)",
    "_area": "surface area (mm²)",
    "_volume": "cortical volume (mm³)",
    "_meancurv": "mean curvature (1/mm)",
    "_gauscurv": "Gaussian curvature (1/mm²)",
    "_foldind": "folding index",
    "_curvind": "curvature index",
    "SurfaceHoles": "holes in the surface (count)",
    "-to-eTIV": "ratio to head size",
}
"""How a column's name ends, and what it measures."""

STRUCTURE, COMPOSITE, UNKNOWN = "volume of a structure (mm³)", "volume of the whole brain or tissue (mm³)", "unknown"


def kind_of(column: str) -> str:
    """What a column measures, with its unit.

    Args:
        column: A column of a FreeSurfer table.

    Returns:
        Such as ``thickness (mm)``.
    """
    for end, kind in KINDS.items():
        if column.endswith(end):
            return kind
    if column in STRUCTURES or OLD_NAMES.get(column) in STRUCTURES:
        return STRUCTURE
    if column in COMPOSITES or column in OLD_NAMES or column.endswith("Vol"):
        return COMPOSITE
    return UNKNOWN


def note_kinds(columns: Iterable[str], account: Account) -> None:
    """Say how many columns measure what, and name those that are not recognised.

    Args:
        columns: All columns.
        account: Takes the line.
    """
    columns = list(columns)
    counts = Counter(kind_of(column) for column in columns)
    unknown = counts.pop(UNKNOWN, 0)
    parts = [f"{count} {kind}" for kind, count in counts.items()]
    if unknown:
        parts.append(f"{unknown} unknown: {list_names(column for column in columns if kind_of(column) == UNKNOWN)}")
    account.note(f"measures: {', '.join(parts)}")


def note_mixture(columns: Iterable[str], account: Account) -> None:
    """Warn where the chosen columns are measures of several kinds, which share no unit.

    Args:
        columns: The chosen columns.
        account: Takes the line.
    """
    kinds = sorted({kind_of(column) for column in columns})
    if len(kinds) > 1:
        account.note(f"the features mix measures of {len(kinds)} kinds: {'; '.join(kinds)}")
