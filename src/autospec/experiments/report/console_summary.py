"""The summary of a figure on the console: what was tested, a line each, and why the rest was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from autospec.figures.terminal import as_text


def summary_text(number: int, path: Path) -> str:
    """Write the summary of a figure for the console.

    Args:
        number: The figure's number.
        path: Its summary, a CSV with the columns of ``analysis.figure_summary.COLUMNS``.

    Returns:
        Lines: a heading, a row for each tested panel, layer and pair, and a sentence for what is not tested.
    """
    table = pd.read_csv(path, dtype={"group_a": str, "group_b": str}, keep_default_na=True)
    asked = zip(table["group_a"], table["group_b"].fillna(""), strict=True)
    table = table.assign(
        asked=[f"{a} / {b}" if b else a for a, b in asked]
    )  # all groups, or a covariate, have no second
    tested = table["p_family"].notna()
    lines = [f"Figure {number}, {path}"]
    if tested.any():
        lines.append(as_text(_columns(table[tested])))
    left_out = table[~tested].assign(verdict=table["verdict"].fillna("not tested"))
    for (panel, verdict), rows in left_out.groupby(["panel", "verdict"], sort=False):
        lines.append(f"{panel}: {' and '.join(dict.fromkeys(rows['asked']))} {verdict}")
    return "\n".join(lines) + "\n"


def _columns(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that are shown; an interval only where one was made."""
    shown = pd.DataFrame({"panel": table["panel"], "layer": table["layer"]})
    shown["groups"] = table["asked"]
    shown["effect"] = table["effect"].map("{:+.2f}".format)
    if np.isfinite(table["low"]).any():
        ends = zip(table["low"], table["high"], strict=True)
        shown["95 %"] = [f"{low:+.2f} to {high:+.2f}" if np.isfinite(low) else "" for low, high in ends]
    for name in ("p", "p_family"):
        shown[name] = table[name].map("{:.3f}".format)
    return shown.assign(verdict=table["verdict"]).set_index("panel")
