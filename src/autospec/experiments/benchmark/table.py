"""The benchmark's rows, and the Markdown tables that are made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.experiments.benchmark.arms import FAST, OTHERS, PLAIN_AGAIN


@dataclass(frozen=True)
class Row:
    """What one method costs on one model, over plain training: medians, and the quartiles of the time.

    ``reason`` says why a method cannot do a model; then there are no ratios.
    """

    model: str
    method: str
    time_ratio: float | None
    time_quartiles: tuple[float, float] | None = None
    memory_ratio: float | None = None
    reason: str = ""

    @classmethod
    def of(cls, model: str, method: str, ratios: npt.NDArray[np.float64], memory_ratio: float | None) -> Row:
        """The row of some paired ratios, (rounds,)."""
        low, middle, high = (float(value) for value in np.quantile(ratios, [0.25, 0.5, 0.75]))
        return cls(model, method, middle, (low, high), memory_ratio)


def write_json(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as a list of JSON objects."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read_json(path: Path) -> list[Row]:
    """The rows of a file that ``write_json`` wrote."""
    return [Row(**row) for row in json.loads(path.read_text())]


def time_table(rows: Sequence[Row]) -> str:
    """Methods down, models across, and the geometric mean; bold where another method is faster than AutoSpec's."""
    return _table("time over plain", rows, lambda row: row.time_ratio, _time_cell)


def memory_table(rows: Sequence[Row]) -> str:
    """What each method's peak adds to the process over what plain training's adds; bold where another needs less."""
    return _table("memory over plain", rows, lambda row: row.memory_ratio, lambda row: f"{row.memory_ratio:.2f}")


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why methods cannot do models, a line for each method and reason."""
    models: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.reason:
            models.setdefault((row.method, row.reason), []).append(row.model)
    return [f"{method} on {', '.join(names)}: {reason}" for (method, reason), names in models.items()]


def apart(rows: Sequence[Row]) -> str:
    """How far two timings of the same plain training are apart, in one sentence."""
    own = [row for row in rows if row.method == PLAIN_AGAIN and row.time_quartiles and row.time_ratio]
    if not own:
        return "Plain training was not timed twice."
    medians = [abs(float(row.time_ratio or 1) - 1) for row in own]
    widest = [max(abs(value - 1) for value in row.time_quartiles or ()) for row in own]
    return (
        f"Plain training was timed twice in every round: over the models the medians of the ratio are up to "
        f"{max(medians):.0%} from 1, the quartiles up to {max(widest):.0%}; differences of that size mean nothing."
    )


def _time_cell(row: Row) -> str:
    low, high = row.time_quartiles or (0.0, 0.0)
    return f"{row.time_ratio:.2f} ({low:.2f}-{high:.2f})"


def _table(title: str, rows: Sequence[Row], value_of: Callable[[Row], float | None], cell: Callable[[Row], str]) -> str:
    models = list(dict.fromkeys(row.model for row in rows))
    by_place = {(row.method, row.model): row for row in rows}
    lines = [_line([title, *models, "geometric mean"]), _line(["---"] * (len(models) + 2))]
    for method in dict.fromkeys(row.method for row in rows):
        cells = [_cell(by_place, method, model, value_of, cell) for model in models]
        values = [value_of(by_place[method, model]) for model in models if (method, model) in by_place]
        known = [value for value in values if value is not None]
        whole = f"{np.exp(np.mean(np.log(known))):.2f}" if len(known) == len(models) else ""
        lines.append(_line([method, *cells, whole]))
    return "\n".join(lines)


def _cell(
    by_place: Mapping[tuple[str, str], Row],
    method: str,
    model: str,
    value_of: Callable[[Row], float | None],
    cell: Callable[[Row], str],
) -> str:
    row, own = by_place.get((method, model)), by_place.get((FAST, model))
    value = None if row is None else value_of(row)
    if row is None or value is None:
        return "-"
    limit = None if own is None else value_of(own)
    return f"**{cell(row)}**" if method in OTHERS and limit is not None and value < limit else cell(row)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
