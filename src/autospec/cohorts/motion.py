"""How a subject moved: the six parameters of rigid motion, and the displacement from volume to volume.

Framewise displacement: Power et al. 2012, NeuroImage 59:2142. fMRIPrep's and NIAK's tables have a header; SPM's
``rp_*.txt``, FSL's ``*.par`` and AFNI's ``*.1D`` are six columns of numbers, told apart by how their names end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.tables import parse_number, read_cells
from autospec.errors import AutoSpecError
from autospec.foreign.files import read_text

RADIUS_MM = 50.0
"""Of the sphere on whose surface rotations are taken as displacements (Power et al. 2012)."""

DISPLACEMENT = ("framewise_displacement", "FramewiseDisplacement", "FD")
"""What fMRIPrep (since 1.1, and 1.0) and NIAK call the displacement from volume to volume, mm."""


@dataclass(frozen=True)
class Convention:
    """How a program writes rigid motion: its columns, translations (mm) first, and the unit of rotations in rad."""

    columns: Sequence[str]
    rotation_rad: float = 1.0


FMRIPREP = Convention(("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"))
NIAK = Convention(("motion_tx", "motion_ty", "motion_tz", "motion_rx", "motion_ry", "motion_rz"), np.pi / 180)
FMRIPREP_1_0 = Convention(("X", "Y", "Z", "RotX", "RotY", "RotZ"))
NAMED = (FMRIPREP, FMRIPREP_1_0, NIAK)

ORDERED = {
    ".txt": Convention("012345"),
    ".par": Convention("345012"),
    ".1d": Convention("345012", np.pi / 180),
}
"""By the end of the file's name: SPM's translations and rotations; FSL's rotations first; AFNI's, in degrees."""


FORMATS = {
    "spm": ORDERED[".txt"],
    "spm-degrees": Convention("012345", np.pi / 180),
    "fsl": ORDERED[".par"],
    "afni": ORDERED[".1d"],
}
"""What ``--motion-format`` says of six columns whose file's name says something else, or nothing."""

ARC_TO_SHIFT = 15.0
"""Rotations whose arcs (on the sphere of 50 mm) are so many times larger than the shifts are not in rad."""


@dataclass(frozen=True)
class Motion:
    """``parameters`` (time, 6), mm and rad, None where the file has none; ``mean_displacement_mm`` NaN if unknown."""

    parameters: npt.NDArray[np.float64] | None = None
    mean_displacement_mm: float = float("nan")


def read_motion(path: Path | None, motion_format: str = "auto") -> Motion:
    """The motion that a file tells of.

    The mean displacement is the file's own where it has a column of displacements, else computed.

    Args:
        path: A table of confounds or a file of six columns; None for none.
        motion_format: A key of FORMATS for six columns without names; ``auto`` goes by the end of the file's name.

    Returns:
        Parameters and mean displacement, as far as the file has them.

    Raises:
        AutoSpecError: The file cannot be read or has gaps.
    """
    if path is None:
        return Motion()
    convention = ORDERED.get(path.suffix.lower())
    table = _table(path) if convention is None else _numbers(path)
    if convention is not None and motion_format != "auto":
        convention = FORMATS[motion_format]
    parameters = _parameters(table, NAMED if convention is None else (convention,), path)
    if parameters is not None and convention is not None and motion_format == "auto":
        _check_size(parameters, path)
    moved = _displacement_mm(table, parameters, path)
    # the first volume has no displacement
    moved = moved[np.isfinite(moved)]
    return Motion(parameters, float(moved.mean()) if moved.size else float("nan"))


def framewise_displacement_mm(parameters: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The sum of the six parameters' absolute changes from volume to volume.

    Power et al. 2012, NeuroImage 59:2142: rotations count as arcs on a sphere of 50 mm.

    Args:
        parameters: (time, 6) Three translations in mm, then three rotations in rad.

    Returns:
        (time − 1,) In mm.
    """
    changes = np.abs(np.diff(np.asarray(parameters, dtype=np.float64), axis=0))
    moved: npt.NDArray[np.float64] = changes[:, :3].sum(axis=1) + RADIUS_MM * changes[:, 3:].sum(axis=1)
    return moved


def read_fmriprep_confounds(scan: Path, strategy: Sequence[str]) -> npt.NDArray[np.float64]:
    """Read what nilearn's ``load_confounds`` chooses of fMRIPrep's confounds.

    Args:
        scan: fMRIPrep's preprocessed scan, with its table of confounds beside it.
        strategy: Such as ``motion``, ``wm_csf``, ``high_pass``; see nilearn.

    Returns:
        (time, confounds).

    Raises:
        AutoSpecError: The strategy is unknown, or the table is not there or lacks its columns.
    """
    from nilearn.interfaces.fmriprep import load_confounds

    if "scrub" in strategy:
        raise AutoSpecError("--confounds scrub: takes volumes out, and time-courses would no longer be of one length")
    try:
        confounds, _ = load_confounds(str(scan), strategy=tuple(strategy))
    except (OSError, ValueError, KeyError) as error:
        raise AutoSpecError(f"--confounds {','.join(strategy)}: {scan}: {' '.join(str(error).split())}") from error
    return np.asarray(confounds.to_numpy(dtype=np.float64))


def _check_size(parameters: npt.NDArray[np.float64], path: Path) -> None:
    """AutoSpecError where the last three columns are too large against the first three to be rotations in rad."""
    shift, turn = np.ptp(parameters[:, :3], axis=0).max(), np.ptp(parameters[:, 3:], axis=0).max()
    if shift > 0 and turn * RADIUS_MM > ARC_TO_SHIFT * shift:
        raise AutoSpecError(
            f"{path}: rotations reach {turn:.3g}, shifts {shift:.3g} mm: are rotations in degrees, or in the first "
            f"three columns? say which with --motion-format ({', '.join(FORMATS)})"
        )


def _parameters(table: pd.DataFrame, conventions: Sequence[Convention], path: Path) -> npt.NDArray[np.float64] | None:
    """(time, 6) mm and rad, by the first convention whose columns are there; None where they are not."""
    convention = next((one for one in conventions if set(one.columns) <= set(table.columns)), None)
    if convention is None:
        return None
    parameters = np.column_stack([_values(table, name, path) for name in convention.columns])
    if not np.isfinite(parameters).all():
        raise AutoSpecError(f"{path}: motion parameters are missing in some rows")
    parameters[:, 3:] *= convention.rotation_rad
    return parameters


def _displacement_mm(
    table: pd.DataFrame, parameters: npt.NDArray[np.float64] | None, path: Path
) -> npt.NDArray[np.float64]:
    """The table's own displacements, else those of its parameters, if it has any."""
    column = next((name for name in DISPLACEMENT if name in table.columns), None)
    if column is not None:
        return _values(table, column, path)
    return np.array([]) if parameters is None else framewise_displacement_mm(parameters)


def _table(path: Path) -> pd.DataFrame:
    """A table's columns of motion. Others may share a name, as NIAK's slow drifts do; these may not."""
    cells = read_cells(path)
    table = cells.iloc[1:].reset_index(drop=True)
    table.columns = pd.Index([str(name) for name in cells.iloc[0]])
    names = [name for convention in NAMED for name in convention.columns]
    table = table.loc[:, table.columns.isin([*names, *DISPLACEMENT])]
    if table.columns.has_duplicates:
        raise AutoSpecError(f"{path}: column {table.columns[table.columns.duplicated()][0]!r} occurs several times")
    return table


def _numbers(path: Path) -> pd.DataFrame:
    """Six columns of numbers without a header, as text under the names 0 to 5."""
    lines = [line.split("#")[0].split() for line in read_text(path).splitlines()]
    rows = [cells for cells in lines if cells]
    if not rows or any(len(cells) != 6 for cells in rows):
        raise AutoSpecError(f"{path}: must hold six columns, the parameters of rigid motion")
    return pd.DataFrame(rows, columns=pd.Index(list("012345")))


def _values(table: pd.DataFrame, column: str, path: Path) -> npt.NDArray[np.float64]:
    values = [parse_number(text) for text in table[column]]
    if None in values:
        raise AutoSpecError(f"{path}: {table[column].iloc[values.index(None)]!r} is no number")
    return np.array(values, dtype=np.float64)
