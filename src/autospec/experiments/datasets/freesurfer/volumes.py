"""The columns of an ``asegstats2table`` table: which are structures, which composites, which empty.

Names and order are FreeSurfer's (version 6; Fischl et al. 2002, Neuron 33:341). Typical sizes are rounded to two
digits, of the order of a healthy adult's; they make the simulated cohort look real and are nobody's measurements.
"""

from __future__ import annotations

from typing import NamedTuple


class Volume(NamedTuple):
    """A structure: its tissue, a typical volume in mm³, and the SD of the log volume given sex, age and head size."""

    tissue: str
    typical_mm3: float
    log_sd: float


TISSUES = ("subcortical", "cortex", "white", "cerebellum", "fluid", "callosum", "trace")

PAIRED = {
    "Lateral-Ventricle": Volume("fluid", 7500, 0.50),
    "Inf-Lat-Vent": Volume("fluid", 330, 0.55),
    "Cerebellum-White-Matter": Volume("cerebellum", 15000, 0.12),
    "Cerebellum-Cortex": Volume("cerebellum", 55000, 0.09),
    "Thalamus-Proper": Volume("subcortical", 7500, 0.09),
    "Caudate": Volume("subcortical", 3600, 0.11),
    "Putamen": Volume("subcortical", 5000, 0.11),
    "Pallidum": Volume("subcortical", 2000, 0.11),
    "Hippocampus": Volume("subcortical", 4100, 0.09),
    "Amygdala": Volume("subcortical", 1700, 0.11),
    "Accumbens-area": Volume("subcortical", 530, 0.16),
    "VentralDC": Volume("white", 4300, 0.09),
    "vessel": Volume("trace", 25, 0.60),
    "choroid-plexus": Volume("fluid", 500, 0.40),
}
"""Structures with a left and a right side."""

SINGLE = {
    "3rd-Ventricle": Volume("fluid", 1000, 0.35),
    "4th-Ventricle": Volume("fluid", 1800, 0.27),
    "Brain-Stem": Volume("white", 22000, 0.09),
    "CSF": Volume("fluid", 1000, 0.25),
    "WM-hypointensities": Volume("trace", 950, 0.45),
    "Optic-Chiasm": Volume("trace", 200, 0.22),
    "CC_Posterior": Volume("callosum", 1000, 0.17),
    "CC_Mid_Posterior": Volume("callosum", 550, 0.20),
    "CC_Central": Volume("callosum", 580, 0.22),
    "CC_Mid_Anterior": Volume("callosum", 570, 0.24),
    "CC_Anterior": Volume("callosum", 950, 0.20),
}

HEMISPHERES = {"CortexVol": Volume("cortex", 230000, 0.08), "CerebralWhiteMatterVol": Volume("white", 240000, 0.08)}
"""Composites that the simulation draws itself, named lh… and rh…; every other one is computed from structures."""

EMPTY = (
    "5th-Ventricle",
    "Left-WM-hypointensities",
    "Right-WM-hypointensities",
    "non-WM-hypointensities",
    "Left-non-WM-hypointensities",
    "Right-non-WM-hypointensities",
)
"""Structures that FreeSurfer finds in next to nobody: constants, or nearly so, in any cohort."""

LEFT_BLOCK = (
    "Lateral-Ventricle", "Inf-Lat-Vent", "Cerebellum-White-Matter", "Cerebellum-Cortex", "Thalamus-Proper", "Caudate",
    "Putamen", "Pallidum", "3rd-Ventricle", "4th-Ventricle", "Brain-Stem", "Hippocampus", "Amygdala", "CSF",
    "Accumbens-area", "VentralDC", "vessel", "choroid-plexus",
)  # fmt: skip
"""How aseg begins: the left side, with the unpaired structures between."""

STRUCTURES = (
    *(f"Left-{name}" if name in PAIRED else name for name in LEFT_BLOCK),
    *(f"Right-{name}" for name in PAIRED),
    "5th-Ventricle",
    "WM-hypointensities",
    *EMPTY[1:],
    *(name for name in SINGLE if name == "Optic-Chiasm" or name.startswith("CC_")),
)
"""The 45 structures of aseg, in its order."""

COMPOSITES = (
    "BrainSegVol", "BrainSegVolNotVent", "BrainSegVolNotVentSurf", "lhCortexVol", "rhCortexVol", "CortexVol",
    "lhCerebralWhiteMatterVol", "rhCerebralWhiteMatterVol", "CerebralWhiteMatterVol", "SubCortGrayVol", "TotalGrayVol",
    "SupraTentorialVol", "SupraTentorialVolNotVent", "SupraTentorialVolNotVentVox", "MaskVol", "BrainSegVol-to-eTIV",
    "MaskVol-to-eTIV", "lhSurfaceHoles", "rhSurfaceHoles", "SurfaceHoles", "EstimatedTotalIntraCranialVol",
)  # fmt: skip
"""The 21 measures that asegstats2table appends: sums, ratios, counts and head size."""

FEATURES = {
    "aseg": tuple(name for name in STRUCTURES if name not in EMPTY),
    "aseg_table": (*STRUCTURES, *COMPOSITES),
}
"""The named lists of ``dataset.features``: 39 volumes without composites and constants, and the whole table of 66."""

OLD_NAMES = {
    "Left-Thalamus": "Left-Thalamus-Proper",
    "Right-Thalamus": "Right-Thalamus-Proper",
    "lhCorticalWhiteMatterVol": "lhCerebralWhiteMatterVol",
    "rhCorticalWhiteMatterVol": "rhCerebralWhiteMatterVol",
    "CorticalWhiteMatterVol": "CerebralWhiteMatterVol",
    "eTIV": "EstimatedTotalIntraCranialVol",
    "sTIV": "EstimatedTotalIntraCranialVol",
}
"""What versions 5, 7 and 8 call columns that version 6 names otherwise (8 has sTIV, segmented, beside or for eTIV)."""


def bare_name(column: str) -> str:
    """A structure's name without its side.

    Args:
        column: A structure's column.

    Returns:
        Such as ``Hippocampus``.
    """
    return column.removeprefix("Left-").removeprefix("Right-").removeprefix("lh").removeprefix("rh")


def volume_of(column: str) -> Volume:
    """The tissue, size and spread of a column that is simulated.

    Args:
        column: A drawn structure's column.

    Returns:
        What is known of it.
    """
    return (PAIRED | SINGLE | HEMISPHERES)[bare_name(column)]
