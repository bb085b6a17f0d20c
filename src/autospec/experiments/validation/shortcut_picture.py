"""The picture of the planted shortcut: how often each test finds it, by its size."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from autospec.figures.saving import save_picture
from autospec.figures.style import COLUMN_IN, OKABE_ITO, TEXT_GREY, print_style


def draw_shortcut(table: pd.DataFrame, path: Path) -> None:
    """Draw the share of studies in which each test finds the shortcut.

    Args:
        table: Rates, with the columns of ``shortcut.COLUMNS``.
        path: The picture.
    """
    with print_style():
        figure = Figure(figsize=(COLUMN_IN, 2.6), layout="constrained")
        axis = figure.subplots()
        for colour, (test, rows) in zip(OKABE_ITO, table.groupby("test", sort=False), strict=False):
            axis.plot(rows["d"], rows["rate"], "o-", color=colour, ms=2.5, lw=0.9, label=test)
            if test == "permutation":
                axis.fill_between(rows["d"], rows["low"], rows["high"], color=colour, alpha=0.2, lw=0)
        axis.axhline(0.05, color=TEXT_GREY, lw=0.6, zorder=0)
        axis.axhline(0.9, color=TEXT_GREY, lw=0.6, ls=":", zorder=0)
        axis.set_ylim(0, 1.02)
        axis.set_xlabel("sex in every input, d (SD); simulated data")
        axis.set_ylabel("share of studies with p_family ≤ 0.05")
        axis.legend(frameon=False)
        save_picture(figure, [path])
