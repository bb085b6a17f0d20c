"""Values that no brain has, judged against the other subjects of a table, so that any unit will do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account
from autospec.errors import AutoSpecError
from autospec.experiments.datasets.freesurfer.cortex import STRUCTURE, kind_of
from autospec.experiments.datasets.freesurfer.volumes import OLD_NAMES, PAIRED, SINGLE, bare_name

SOLID_TISSUES = ("subcortical", "white", "cerebellum")
"""Tissues whose structures everybody has, and whose sizes differ little: not ventricles, vessels or lesions."""

TOO_FAR = 10.0
"""A structure so many times smaller or larger than the median subject's is no size of it."""

OTHER_UNIT = 100.0
"""A subject all of whose structures are so many times smaller or larger was measured in another unit."""


def keep_plausible(subjects: pd.DataFrame, values: pd.DataFrame, account: Account) -> pd.DataFrame:
    """Leave out the subjects with a value that no brain has; the account names subject, structure and value.

    Args:
        subjects: The joined phenotype table; ``row`` indexes the values.
        values: Measures (n, features).
        account: Takes a line for every subject left out.

    Returns:
        The rows that are left.

    Raises:
        AutoSpecError: Nobody is left.
    """
    solid = [str(name) for name in values.columns if _is_solid(str(name))]
    if not solid:
        return subjects
    sizes = values[solid].to_numpy(dtype=np.float64)[subjects["row"]]
    ratios = _to_median(sizes)
    kept = np.ones(len(subjects), dtype=bool)
    for row, subject in enumerate(subjects["id"]):
        reason = _reason(ratios[row], sizes[row], solid)
        if reason:
            account.drop(str(subject), reason)
            kept[row] = False
    if not kept.any():
        raise AutoSpecError(f"nobody has plausible volumes; such as {next(iter(account.dropped.values()))}")
    return subjects[kept].reset_index(drop=True)


def _is_solid(column: str) -> bool:
    structure = (PAIRED | SINGLE).get(bare_name(OLD_NAMES.get(column, column)))
    return kind_of(column) == STRUCTURE and structure is not None and structure.tissue in SOLID_TISSUES


def _to_median(sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, structures) Each size relative to its median over subjects; 1 where it is missing or there is no median."""
    known = np.where(np.isfinite(sizes), sizes, np.nan)
    medians = np.array(
        [np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else 0 for column in known.T]
    )
    ratios = known / np.where(medians > 0, medians, np.nan)
    return np.where(np.isnan(ratios), 1.0, ratios)


def _reason(ratios: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64], names: list[str]) -> str:
    """Why a subject's values cannot be meant; empty where they can."""
    if ratios.min() > OTHER_UNIT or 0 < ratios.max() < 1 / OTHER_UNIT:
        return f"volumes are {np.median(ratios):.3g} times those of the others: another unit (cm³ among mm³)?"
    odd = np.flatnonzero((ratios > TOO_FAR) | (ratios < 1 / TOO_FAR))
    if not odd.size:
        return ""
    worst = int(odd[0])
    return f"{names[worst]} is {sizes[worst]:g}, {ratios[worst]:.3g} times the median subject's, which no brain has"
