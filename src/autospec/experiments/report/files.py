"""Where the files of a figure stand, and what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import autospec.analysis
import autospec.figures
from autospec.experiments.report.figure_plan import FigurePlan
from autospec.experiments.report.retraining import is_retrained, ratios_path


@dataclass(frozen=True)
class FigureFiles:
    """The files of one figure.

    Attributes:
        output_dir: The folder below which they stand.
        number: The figure's number.
    """

    output_dir: Path
    number: int

    @property
    def pictures(self) -> list[Path]:
        """The whole figure, as PDF and PNG."""
        return [self.output_dir / "figures" / f"figure_{self.number}.{kind}" for kind in ("pdf", "png")]

    def panel(self, letter: str) -> Path:
        """Return the picture of one panel."""
        return self.output_dir / "figures" / f"figure_{self.number}_{letter}.png"

    @property
    def table(self) -> Path:
        """The table of its tests."""
        return self.output_dir / "tables" / f"figure_{self.number}_tests.csv"

    @property
    def summary(self) -> Path:
        """The summary of its tests, a row for each panel, layer and pair."""
        return self.output_dir / "tables" / f"figure_{self.number}_summary.csv"

    @property
    def caption(self) -> Path:
        """Its caption, ready for a paper."""
        return self.output_dir / "figures" / f"figure_{self.number}_caption.md"

    @property
    def stamp(self) -> Path:
        """A digest of what the files were made from."""
        return self.output_dir / "figures" / f".figure_{self.number}.json"

    def are_current(self, letters: Sequence[str], made_from: Mapping[str, str]) -> bool:
        """Tell whether all files are there and were made from just this.

        Args:
            letters: The panels that have a picture of their own.
            made_from: What ``digest_of`` returned.

        Returns:
            Whether nothing is to be done.
        """
        every = [*self.pictures, self.table, self.summary, self.caption, *map(self.panel, letters)]
        stamped = self.stamp.exists() and self.stamp.read_bytes() == json.dumps(made_from).encode()
        return stamped and all(path.exists() for path in every)


def digest_of(figure: FigurePlan) -> dict[str, str]:
    """Say what a figure is made from: its runs' files, its settings, and the code that tests and draws.

    Args:
        figure: The figure's plan.

    Returns:
        A line for the code, and one for each panel and seed.
    """
    made_from = {"code": _code_digest()}
    for panel in figure.panels:
        shown = f"{panel.config.figure} {panel.config.supplement}"
        for plan in panel.seeds:
            # size and time stand for the content, which takes longer to read than the figure to draw
            status = plan.folder.spectra.stat()
            stamp = f"{plan.folder.run_id} {status.st_size} {status.st_mtime_ns} {shown}"
            kept = ratios_path(plan)
            stamp += f" {kept.name} {kept.stat().st_mtime_ns}" if is_retrained(plan) and kept.exists() else ""
            made_from[f"{panel.letter} {plan.config.seed}"] = stamp
    return made_from


def _code_digest() -> str:
    total = hashlib.sha256()
    # what tests and draws; other code has done its part when the run was made
    places = [Path(__file__).parent, *(Path(str(one.__file__)).parent for one in (autospec.analysis, autospec.figures))]
    for place in places:
        for path in sorted(place.glob("*.py")):
            total.update(path.read_bytes())
    return total.hexdigest()[:16]
