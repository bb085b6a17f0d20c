"""A picture of the statements: in what share of seeds each holds."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from autospec.figures.saving import save_picture
from autospec.figures.style import OKABE_ITO, PAGE_IN, SMALLEST_PT, print_style

COLOURS = {"holds": OKABE_ITO[0], "sometimes": OKABE_ITO[1], "does not hold": OKABE_ITO[4]}


def draw_statements(table: pd.DataFrame, path: Path) -> None:
    """Draw the share of seeds in which each statement holds, with its interval.

    Args:
        table: The table of statements.
        path: The picture.
    """
    with print_style():
        figure = Figure(figsize=(PAGE_IN, 0.6 + 0.3 * len(table)), layout="constrained")
        axis = figure.subplots()
        places = range(len(table))[::-1]
        for place, row in zip(places, table.to_dict("records"), strict=True):
            colour = COLOURS[row["verdict"]]
            axis.plot([row["low"], row["high"]], [place, place], color=colour, lw=1.2)
            axis.plot(row["share"], place, "o", color=colour, ms=4)
        texts = [
            textwrap.fill(f"{number} {states}", 62)
            for number, states in zip(table["statement"], table["states"], strict=True)
        ]
        axis.set_yticks(list(places), texts)
        axis.tick_params(axis="y", length=0, labelsize=SMALLEST_PT)
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(table) - 0.4))
        axis.set_xlabel(f"share of {table['seeds'].iloc[0]} seeds in which the statement holds, with 95 % interval")
        axis.axvline(0.9, color="0.8", lw=0.6, zorder=0)
        axis.axvline(0.1, color="0.8", lw=0.6, zorder=0)
        save_picture(figure, [path])
