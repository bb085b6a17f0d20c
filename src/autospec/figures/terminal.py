"""Tables and small curves as text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.harmless import visible

BARS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24
"""Characters of a curve."""


def as_text(table: pd.DataFrame) -> str:
    """Write a table for a terminal: every row and column, text to the left, numbers short.

    Args:
        table: The table, indexed by layer.

    Returns:
        Its lines.
    """
    columns = {str(table.index.name): [visible(str(name)) for name in table.index]}
    for name, values in table.items():
        columns[str(name)] = [_cell(value) for value in values]
    widths = [max(map(len, (name, *cells))) for name, cells in columns.items()]
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cell(value: object) -> str:
    if value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.3g}"
    return visible(str(value))


def sparkline(values: npt.NDArray[np.float64]) -> str:
    """Draw values as bars of text, on a logarithmic scale; a gap where a value is zero or not finite.

    Args:
        values: (epoch,) values.

    Returns:
        One character for each of a few evenly spaced epochs.
    """
    if not len(values):
        return ""
    places = np.unique(np.linspace(0, len(values) - 1, SPARK_WIDTH).round().astype(int))
    positive = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    logs = np.log(positive[places])
    if not np.isfinite(logs).any():
        return " " * len(logs)
    low, span = np.nanmin(logs), np.ptp(logs[np.isfinite(logs)])
    heights = (logs - low) / span if span > 0 else logs * 0
    return "".join(" " if np.isnan(height) else BARS[round(height * (len(BARS) - 1))] for height in heights)
