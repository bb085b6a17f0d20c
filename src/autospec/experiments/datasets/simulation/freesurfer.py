"""A simulated cohort of brain volumes: head size, sex, age, motion and diagnosis act on correlated log volumes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import FreesurferConfig, VolumeCorrelationConfig
from autospec.experiments.datasets.freesurfer.volumes import (
    EMPTY,
    FEATURES,
    HEMISPHERES,
    PAIRED,
    SINGLE,
    STRUCTURES,
    TISSUES,
    bare_name,
    volume_of,
)
from autospec.experiments.datasets.simulation.subjects import SimulatedSubjects, Vector, check_keys

HEAD_SIZE = "head_size"
HEAD_MM3, HEAD_LOG_SD = 1.53e6, 0.095
MASK_TO_HEAD, MASK_LOG_SD = 1.05, 0.03
SURFACE_HOLES = 30

DRAWN = (
    *(name for name in STRUCTURES if name not in EMPTY),
    *(f"{side}{name}" for name in HEMISPHERES for side in ("lh", "rh")),
)
"""The volumes that are drawn; the other columns follow from them."""


def simulate_table(config: FreesurferConfig, subjects: SimulatedSubjects, random: np.random.Generator) -> pd.DataFrame:
    """The 66 columns of an ``asegstats2table`` table of simulated subjects.

    A log volume is its typical value plus ``log_sd`` times (residual + effects), residuals of unit variance: so a
    diagnosis effect is Cohen's d given sex, age and head size, as meta-analyses report it.

    Args:
        config: The data set's configuration.
        subjects: Who is simulated.
        random: The random stream.

    Returns:
        One row per subject, volumes in mm³.
    """
    heads, residuals, rest = random.spawn(3)
    head = heads.standard_normal(len(subjects)) + subjects.sex * config.sex_effects.get(HEAD_SIZE, 0.0)
    head += subjects.diagnosis * config.diagnosis_effects.get(HEAD_SIZE, 0.0)
    deviation = _residuals(len(subjects), config.correlation, residuals)
    causes = (subjects.diagnosis, subjects.sex, subjects.age, subjects.motion, head)
    for cause, effect in zip(causes, effects(config), strict=True):
        deviation += np.outer(cause, effect)
    typical = np.array([volume_of(name).typical_mm3 for name in DRAWN])
    spread = np.array([volume_of(name).log_sd for name in DRAWN])
    volumes = pd.DataFrame(typical * np.exp(spread * deviation), columns=list(DRAWN))
    return _with_composites(volumes, HEAD_MM3 * np.exp(HEAD_LOG_SD * head), rest)


def effects(config: FreesurferConfig) -> list[Vector]:
    """What diagnosis, sex, age, motion and head size do to each drawn volume, in SD.

    Args:
        config: The data set's configuration.

    Returns:
        A vector (drawn volumes,) per cause.

    Raises:
        AutoSpecError: A key of the effects is unknown.
    """
    keys = ("diagnosis_effects", "sex_effects", "age_effects", "motion_effects", "head_size_effects")
    return [_by_column(getattr(config, key), key) for key in keys]


def _by_column(given: Mapping[str, float], key: str) -> Vector:
    """The effect on each drawn volume: what is said of the structure, else of its tissue, else none."""
    acting_on_head = {HEAD_SIZE} if key in ("sex_effects", "diagnosis_effects") else set()
    check_keys(key, given, {*PAIRED, *SINGLE, *HEMISPHERES, *TISSUES, *acting_on_head})
    return np.array([given.get(bare_name(name), given.get(volume_of(name).tissue, 0.0)) for name in DRAWN])


def _residuals(subjects: int, correlation: VolumeCorrelationConfig, random: np.random.Generator) -> npt.NDArray:
    """Standard normal values (subjects, volumes) whose correlations are nested: overall, of a tissue, of a pair."""
    levels = [0.0, correlation.overall, correlation.tissue, correlation.hemispheres, 1.0]
    if sorted(levels) != levels:
        raise AutoSpecError(
            f"dataset.correlation={levels[1:-1]}: overall, tissue and hemispheres must rise between 0 and 1"
        )
    owners = (
        [""] * len(DRAWN), [volume_of(name).tissue for name in DRAWN], [bare_name(name) for name in DRAWN], DRAWN,
    )  # fmt: skip
    total = np.zeros((subjects, len(DRAWN)))
    for share, owner in zip(np.diff(levels), owners, strict=True):
        _, index = np.unique(owner, return_inverse=True)
        total += np.sqrt(share) * random.standard_normal((subjects, index.max() + 1))[:, index]
    return total


def _with_composites(volumes: pd.DataFrame, head_mm3: Vector, random: np.random.Generator) -> pd.DataFrame:
    """The whole table: empty structures, and FreeSurfer's sums, ratios and counts."""

    def total(*names: str) -> pd.Series:
        return volumes[[column for column in volumes if bare_name(str(column)) in names]].sum(axis=1)

    grey = [name for name, volume in PAIRED.items() if volume.tissue == "subcortical"]
    table = volumes.assign(**dict.fromkeys(EMPTY, 0.0))
    table["CortexVol"] = total("CortexVol")
    table["CerebralWhiteMatterVol"] = total("CerebralWhiteMatterVol")
    table["SubCortGrayVol"] = total(*grey, "VentralDC")
    table["TotalGrayVol"] = table["CortexVol"] + table["SubCortGrayVol"] + total("Cerebellum-Cortex")
    cerebrum = table["CortexVol"] + table["CerebralWhiteMatterVol"] + table["SubCortGrayVol"]
    table["SupraTentorialVolNotVent"] = table["SupraTentorialVolNotVentVox"] = cerebrum
    table["SupraTentorialVol"] = cerebrum + total("Lateral-Ventricle", "Inf-Lat-Vent", "choroid-plexus")
    cerebellum = total("Cerebellum-Cortex", "Cerebellum-White-Matter")
    table["BrainSegVol"] = table["SupraTentorialVol"] + cerebellum + total("3rd-Ventricle", "4th-Ventricle")
    table["BrainSegVolNotVent"] = table["BrainSegVolNotVentSurf"] = cerebrum + cerebellum
    table["EstimatedTotalIntraCranialVol"] = head_mm3
    table["MaskVol"] = MASK_TO_HEAD * head_mm3 * np.exp(MASK_LOG_SD * random.standard_normal(len(table)))
    table["BrainSegVol-to-eTIV"] = table["BrainSegVol"] / head_mm3
    table["MaskVol-to-eTIV"] = table["MaskVol"] / head_mm3
    table["lhSurfaceHoles"] = random.poisson(SURFACE_HOLES, len(table)).astype(float)
    table["rhSurfaceHoles"] = random.poisson(SURFACE_HOLES, len(table)).astype(float)
    table["SurfaceHoles"] = table["lhSurfaceHoles"] + table["rhSurfaceHoles"]
    return table[list(FEATURES["aseg_table"])]
