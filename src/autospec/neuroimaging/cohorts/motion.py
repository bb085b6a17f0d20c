"""How a person moved, from the table of confounds beside a scan (fMRIPrep's or NIAK's)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.datasets.tables import number, read_table
from autospec.errors import AutoSpecError

PARAMETERS = (
    ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"),
    ("motion_tx", "motion_ty", "motion_tz", "motion_rx", "motion_ry", "motion_rz"),
)
"""The six parameters of rigid motion, as fMRIPrep and as NIAK call them."""

DISPLACEMENT = ("framewise_displacement", "FD")
"""Displacement from volume to volume, mm (Power et al. 2012, NeuroImage 59:2142)."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """``parameters`` (time, 6), or None where the table has none; ``mean_displacement_mm`` is NaN where unknown."""

    parameters: Array | None = None
    mean_displacement_mm: float = float("nan")


def read_motion(path: Path | None) -> Motion:
    """The motion that a table tells of; AutoSpecError naming a table that cannot be read or has gaps."""
    if path is None:
        return Motion()
    table = read_table(path)
    names = next((names for names in PARAMETERS if set(names) <= set(table.columns)), None)
    parameters = None if names is None else np.column_stack([_values(table[name], path) for name in names])
    if parameters is not None and not np.isfinite(parameters).all():
        raise AutoSpecError(f"{path}: motion parameters are missing in some rows")
    column = next((name for name in DISPLACEMENT if name in table.columns), None)
    # the first volume has no displacement
    moved = np.array([]) if column is None else _values(table[column], path)
    known = moved[np.isfinite(moved)]
    return Motion(parameters, float(known.mean()) if known.size else float("nan"))


def _values(cells: Iterable[str], path: Path) -> Array:
    cells = list(cells)
    values = [number(text) for text in cells]
    if None in values:
        raise AutoSpecError(f"{path}: {cells[values.index(None)]!r} is no number")
    return np.array(values, dtype=np.float64)
