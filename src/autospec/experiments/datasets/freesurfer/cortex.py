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

DKT_REGIONS = tuple(name for name in REGIONS if name not in ("bankssts", "frontalpole", "temporalpole"))
"""The regions of the ``aparc.DKTatlas`` (Klein & Tourville 2012, Front Neurosci 6:171), under the same names."""

DESTRIEUX_REGIONS = (
    "G_and_S_frontomargin", "G_and_S_occipital_inf", "G_and_S_paracentral", "G_and_S_subcentral",
    "G_and_S_transv_frontopol", "G_and_S_cingul-Ant", "G_and_S_cingul-Mid-Ant", "G_and_S_cingul-Mid-Post",
    "G_cingul-Post-dorsal", "G_cingul-Post-ventral", "G_cuneus", "G_front_inf-Opercular", "G_front_inf-Orbital",
    "G_front_inf-Triangul", "G_front_middle", "G_front_sup", "G_Ins_lg_and_S_cent_ins", "G_insular_short",
    "G_occipital_middle", "G_occipital_sup", "G_oc-temp_lat-fusifor", "G_oc-temp_med-Lingual",
    "G_oc-temp_med-Parahip", "G_orbital", "G_pariet_inf-Angular", "G_pariet_inf-Supramar", "G_parietal_sup",
    "G_postcentral", "G_precentral", "G_precuneus", "G_rectus", "G_subcallosal", "G_temp_sup-G_T_transv",
    "G_temp_sup-Lateral", "G_temp_sup-Plan_polar", "G_temp_sup-Plan_tempo", "G_temporal_inf", "G_temporal_middle",
    "Lat_Fis-ant-Horizont", "Lat_Fis-ant-Vertical", "Lat_Fis-post", "Pole_occipital", "Pole_temporal", "S_calcarine",
    "S_central", "S_cingul-Marginalis", "S_circular_insula_ant", "S_circular_insula_inf", "S_circular_insula_sup",
    "S_collat_transv_ant", "S_collat_transv_post", "S_front_inf", "S_front_middle", "S_front_sup",
    "S_interm_prim-Jensen", "S_intrapariet_and_P_trans", "S_oc_middle_and_Lunatus", "S_oc_sup_and_transversal",
    "S_occipital_ant", "S_oc-temp_lat", "S_oc-temp_med_and_Lingual", "S_orbital_lateral", "S_orbital_med-olfact",
    "S_orbital-H_Shaped", "S_parieto_occipital", "S_pericallosal", "S_postcentral", "S_precentral-inf-part",
    "S_precentral-sup-part", "S_suborbital", "S_subparietal", "S_temporal_inf", "S_temporal_sup",
    "S_temporal_transverse",
)  # fmt: skip
"""The regions of the ``aparc.a2009s`` atlas (Destrieux et al. 2010, NeuroImage 53:1); some tables write G&S."""

CORTEX_FEATURES = {
    f"{atlas}_{measure}": tuple(f"{side}_{region}_{measure}" for side in ("lh", "rh") for region in regions)
    for atlas, regions in (("aparc", REGIONS), ("dkt", DKT_REGIONS), ("destrieux", DESTRIEUX_REGIONS))
    for measure in ("thickness", "area", "volume")
}
"""Named lists of ``dataset.features``."""

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
    "_per_eTIV": "share of head size",
    "_mean": "mean intensity",
    "_std": "SD of intensity",
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
