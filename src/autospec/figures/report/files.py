"""What a report can show: the spectra files, pictures and tables that lie in a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from autospec.errors import AutoSpecError

SPECTRA, CONFIG, PROVENANCE = "spectra.h5", "config.yaml", "provenance.json"
"""Names of files in the folder of a run."""
RUNS, FIGURES, TABLES = "runs", "figures", "tables"
"""Names of folders in an output folder."""


@dataclass(frozen=True)
class FigurePictures:
    """A picture and the pictures of its panels, whose names begin with its own."""

    whole: Path
    panels: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ReportFiles:
    """The files that a report shows.

    Attributes:
        root: What was asked for: a file or a folder.
        spectra: Spectra files.
        figures: Pictures.
        tables: Tables of tests, as CSV.
        absent: A line for each run that has no spectra.
    """

    root: Path
    spectra: tuple[Path, ...]
    figures: tuple[FigurePictures, ...] = ()
    tables: tuple[Path, ...] = ()
    absent: tuple[str, ...] = field(default=())


def find_files(root: Path) -> ReportFiles:
    """Find what a report can show.

    Args:
        root: A spectra file, the folder of a run, or a folder of runs, figures and tables such as ``outputs``.

    Returns:
        The files, in the order in which a reader expects them: ``figure_2`` before ``figure_10``.

    Raises:
        AutoSpecError: There is no such file or folder, or nothing in it that a report shows.
    """
    if not root.exists():
        raise AutoSpecError(f"{root}: no such file or folder")
    if not root.is_dir():
        return ReportFiles(root, (root,))
    spectra = {*root.glob("*.h5"), *root.rglob(SPECTRA)}
    files = ReportFiles(
        root=root,
        spectra=tuple(sorted(spectra, key=_natural)),
        figures=_figures(root / FIGURES),
        tables=tuple(sorted((root / TABLES).glob("*_tests.csv"), key=_natural)),
        absent=_without_spectra(root / RUNS),
    )
    if not (files.spectra or files.figures or files.tables):
        raise AutoSpecError(f"{root} holds no spectra, figures or tables; name a {SPECTRA}, or the folder of runs")
    return files


def _figures(folder: Path) -> tuple[FigurePictures, ...]:
    pictures = sorted(folder.glob("*.png"), key=_natural)

    def panels(whole: Path) -> tuple[Path, ...]:
        return tuple(picture for picture in pictures if picture.stem.startswith(f"{whole.stem}_"))

    inside = {panel for picture in pictures for panel in panels(picture)}
    return tuple(FigurePictures(picture, panels(picture)) for picture in pictures if picture not in inside)


def _without_spectra(runs: Path) -> tuple[str, ...]:
    folders = sorted((path for path in runs.glob("*") if path.is_dir()), key=_natural)
    return tuple(f"{path}: no spectra yet" for path in folders if not (path / SPECTRA).exists())


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """By numbers within names; the whole path last, so that the order is always the same."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], str(path)
