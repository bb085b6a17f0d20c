"""FreeSurfer's own ``stats`` folders, read into the table that asegstats2table and aparcstats2table would write.

Versions 5 to 7: ``aseg.stats`` has one volume per structure, ``?h.aparc.stats`` several measures per region, and both
carry measures of the whole brain above their tables (Fischl et al. 2002, Neuron 33:341; 2004, Cereb Cortex 14:11).
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.errors import AutoSpecError
from autospec.foreign.files import read_text

STATS = "stats"
ASEG = "aseg.stats"
ASEG_NAMES = (ASEG, "aseg.VINN.stats", "aseg+DKT.stats", "aseg+DKT.VINN.stats")
"""FreeSurfer's name, and FastSurfer's; the first that is there is read."""

APARC = ("aparc.stats", "aparc.DKTatlas.mapped.stats", "aparc.DKTatlas.stats")
"""Behind the hemisphere: FreeSurfer's name, and FastSurfer's of the same regions; the first that is there is read."""

HEMISPHERES = ("lh", "rh")
SURFACE_MEASURES = {"SurfArea": "area", "GrayVol": "volume", "ThickAvg": "thickness"}
"""Columns of ``?h.aparc.stats``, and the end of the column's name in a table."""

WHOLE_CORTEX = {"WhiteSurfArea": "area", "MeanThickness": "thickness"}
UNKNOWN = "an unknown version"

Row = dict[str, str]


def stats_files(subjects_dir: Path) -> list[Path]:
    """Every file that is read of a SUBJECTS_DIR, in the order of its subjects.

    Args:
        subjects_dir: FreeSurfer's SUBJECTS_DIR.

    Returns:
        The files.

    Raises:
        AutoSpecError: There is none.
    """
    if not subjects_dir.is_dir():
        raise AutoSpecError(f"dataset.subjects_dir={subjects_dir}: there is no such folder")
    files = [file for subject in _subjects(subjects_dir) for file in _files_of(subject) if file is not None]
    if not files:
        raise AutoSpecError(f"dataset.subjects_dir={subjects_dir}: no subject has {STATS}/{ASEG} or aparc.stats")
    return files


def read_subjects(subjects_dir: Path, account: Account) -> pd.DataFrame:
    """Read a SUBJECTS_DIR as a table; what a subject lacks is empty there and in the account.

    Args:
        subjects_dir: FreeSurfer's SUBJECTS_DIR.
        account: Takes a line for what is lacking or cannot be read.

    Returns:
        One row per subject, text, first column ``subject``.

    Raises:
        AutoSpecError: There is no file.
    """
    rows: dict[str, Row] = {}
    versions: dict[str, list[str]] = {}
    for file in stats_files(subjects_dir):
        subject = file.parent.parent.name
        try:
            version, row = _read(file)
        except (OSError, ValueError) as error:
            account.note(f"{subject}: {file.name} cannot be read: {' '.join(str(error).split())}")
            continue
        rows.setdefault(subject, {}).update(row)
        owners = versions.setdefault(version, [])
        owners += [subject] if subject not in owners else []
    _note(subjects_dir, rows, versions, account)
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    return table.rename_axis("subject").reset_index()


def _subjects(subjects_dir: Path) -> list[Path]:
    """Folders with a stats folder; ``fsaverage`` and its like are FreeSurfer's, not subjects."""
    folders = sorted(folder for folder in subjects_dir.iterdir() if (folder / STATS).is_dir())
    return [folder for folder in folders if not folder.name.startswith("fsaverage")]


def _files_of(subject: Path) -> list[Path | None]:
    """The file of the structures and of each hemisphere; None for one that is not there."""
    kinds = (ASEG_NAMES, *([f"{side}.{name}" for name in APARC] for side in HEMISPHERES))
    return [
        next((subject / STATS / name for name in names if (subject / STATS / name).is_file()), None) for names in kinds
    ]


def _note(subjects_dir: Path, rows: dict[str, Row], versions: dict[str, list[str]], account: Account) -> None:
    told = "; ".join(f"{version} ({list_names(owners)})" for version, owners in sorted(versions.items()))
    account.note(f"{subjects_dir.name}: stats of {len(rows)} subjects; FreeSurfer {told}")
    if len(versions) > 1:
        account.warn(f"{subjects_dir.name}: versions of FreeSurfer differ, and so do their volumes: {told}")
    for folder in _subjects(subjects_dir):
        kinds = (ASEG, *(f"{side}.{APARC[0]}" for side in HEMISPHERES))
        lacking = [name for name, file in zip(kinds, _files_of(folder), strict=True) if file is None]
        if lacking:
            account.note(f"{folder.name}: has no {', '.join(lacking)}")
        if folder.name not in rows:
            account.drop(folder.name, f"has no readable stats in {subjects_dir.name}")


def _read(file: Path) -> tuple[str, Row]:
    """The version that wrote a file, and its values by the table's column names; ValueError for another file."""
    lines = read_text(file, errors="replace").splitlines()
    header = next((line.split()[2:] for line in lines if line.startswith("# ColHeaders")), None)
    cells = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if header is None or not cells:
        raise ValueError("it is no table of statistics, or has been cut off")
    lacking = [name for name in _needed(file) if name not in header]
    if lacking:
        raise ValueError(f"its table has no column {', '.join(lacking)}")
    short = [row for row in cells if len(row) < len(header)]
    if short:
        raise ValueError(f"the row of {short[0][0]} has {len(short[0])} of {len(header)} values")
    table = [dict(zip(header, row, strict=False)) for row in cells]
    side = file.name.split(".")[0]
    values = _structures(table) if file.name in ASEG_NAMES else _regions(table, side)
    return _version(lines), {**_measures(lines, "" if file.name in ASEG_NAMES else side), **values}


def _needed(file: Path) -> tuple[str, ...]:
    return ("StructName", "Volume_mm3") if file.name in ASEG_NAMES else ("StructName", *SURFACE_MEASURES)


def _structures(table: list[Row]) -> Row:
    return {row["StructName"]: row["Volume_mm3"] for row in table}


def _regions(table: list[Row], side: str) -> Row:
    ends = SURFACE_MEASURES.items()
    return {f"{side}_{row['StructName']}_{end}": row[column] for row in table for column, end in ends}


def _measures(lines: list[str], side: str) -> Row:
    """The measures above a table, by their short names; those of a hemisphere's cortex with its side."""
    measures = {}
    for line in lines:
        if line.startswith("# Measure "):
            parts = [part.strip() for part in line.removeprefix("# Measure ").split(",")]
            if len(parts) < 4:
                continue
            # version 6 forgets a comma: "CortexVol Total cortical gray matter volume"
            name = parts[1].split()[0]
            if name in WHOLE_CORTEX and side:
                measures[f"{side}_{name}_{WHOLE_CORTEX[name]}"] = parts[-2]
            elif name != "NumVert":
                measures[name] = parts[-2]
    return measures


def _version(lines: list[str]) -> str:
    """Its number since version 7, and FastSurfer's; before, the year of the last revision tells 5 from 6."""
    if any("segstats.py" in line or "FastSurfer" in line for line in lines if line.startswith("#")):
        return "FastSurfer"
    for line in lines:
        if not line.startswith("# cvs_version"):
            continue
        number = re.search(r"cvs_version\s+(\d+\.\d[\w.]*)\s*$", line)
        if number:
            return number.group(1)
        year = re.search(r",v [\d.]+ (\d{4})/", line)
        return UNKNOWN if year is None else "6" if int(year.group(1)) >= 2015 else "5"
    return UNKNOWN
