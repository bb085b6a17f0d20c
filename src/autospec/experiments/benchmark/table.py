"""The benchmark's rows, and the Markdown table that is made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.experiments.benchmark.arms import LOOP, PLAIN_AGAIN


@dataclass(frozen=True)
class Row:
    """What one method costs on one model, over plain training: medians, and the quartiles of the time."""

    model: str
    method: str
    time_ratio: float
    time_quartiles: tuple[float, float]
    memory_ratio: float | None = None

    @classmethod
    def of(cls, model: str, method: str, ratios: npt.NDArray[np.float64], memory_ratio: float | None) -> Row:
        """The row of some paired ratios, (rounds,)."""
        low, middle, high = (float(value) for value in np.quantile(ratios, [0.25, 0.5, 0.75]))
        return cls(model, method, middle, (low, high), memory_ratio)


def write_json(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as a list of JSON objects."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def markdown(rows: Sequence[Row]) -> str:
    """Methods down, models across, and the geometric mean; bold where a method is slower than the loop over groups."""
    models = list(dict.fromkeys(row.model for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    by_place = {(row.method, row.model): row for row in rows}
    lines = [_line(["time over plain", *models, "geometric mean"]), _line(["---"] * (len(models) + 2))]
    for method in methods:
        own = [by_place.get((method, model)) for model in models]
        limits = [by_place.get((LOOP, model)) for model in models]
        ratios = [row.time_ratio for row in own if row is not None]
        whole = f"{np.exp(np.mean(np.log(ratios))):.2f}" if len(ratios) == len(models) else ""
        lines.append(_line([method, *map(_cell, own, limits), whole]))
    return "\n".join(lines)


def _cell(row: Row | None, limit: Row | None) -> str:
    if row is None:
        return "-"
    low, high = row.time_quartiles
    text = f"{row.time_ratio:.2f} ({low:.2f}-{high:.2f})"
    slower = row.method != PLAIN_AGAIN and limit is not None and row.time_ratio > limit.time_ratio
    return f"**{text}**" if slower else text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
