"""What colours and marks say; of what is drawn alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath

from autospec.figures.contents import DifferencePanel, Panel, SpectraPanel
from autospec.figures.difference_panel import COLOURS, DARK, has_dark_marks, has_grey_cells
from autospec.figures.style import FLOOR_GREY, LEFT_OUT_GREY, group_colours
from autospec.harmless import in_picture
from autospec.store.schema import ALL

LEGEND_PT, HANDLE_EM = 6.5, 2.6
"""The font size, and what stands around each of its words: handle, padding and the space between columns."""

Handle = Line2D | Patch


def legend_handles(panels: Sequence[Panel]) -> list[Handle]:
    """List a handle for everything that is drawn.

    Args:
        panels: The panels of a page.

    Returns:
        The handles.
    """
    spectra = [panel for panel in panels if isinstance(panel, SpectraPanel)]
    differences = [panel for panel in panels if isinstance(panel, DifferencePanel)]
    return [*(_of_spectra(spectra) if spectra else []), *(_of_differences(differences) if differences else [])]


def legend_rows(handles: Sequence[Handle], width: float) -> int:
    """Count the rows that a legend takes, by the width of its words.

    Args:
        handles: Its handles.
        width: The width of the page in inches.

    Returns:
        The number of rows.
    """
    widths_in = [(_width_pt(str(handle.get_label())) + HANDLE_EM * LEGEND_PT) / 72 for handle in handles]
    for rows in range(1, len(handles)):
        # a column is as wide as its widest; a legend is filled column by column
        columns = np.array_split(widths_in, -(-len(handles) // rows))
        if sum(column.max() for column in columns) <= width - 0.1:
            return rows
    return max(1, len(handles))


@cache
def _width_pt(words: str) -> float:
    return float(TextPath((0, 0), words, size=LEGEND_PT).get_extents().width)


def _of_spectra(panels: Sequence[SpectraPanel]) -> list[Handle]:
    groups, names = panels[0].groups, panels[0].group_labels
    has_floor = any((_shown(panel)["scaled_floor"] > 0).any() for panel in panels)
    colours = group_colours(groups)
    handles: list[Handle] = [Line2D([], [], color=colours[one], lw=2, label=in_picture(names[one])) for one in groups]
    if ALL not in groups:
        handles.append(Line2D([], [], color="0.65", lw=0.8, label="whole batch, every index"))
    if has_floor:
        handles.append(Patch(color=FLOOR_GREY, label="noise of rounding"))
    return handles


def _shown(panel: SpectraPanel) -> pd.DataFrame:
    return panel.frame[panel.frame["layer"].isin([layer.name for layer in panel.layers])]


def _of_differences(panels: Sequence[DifferencePanel]) -> list[Handle]:
    has_grey = any(has_grey_cells(panel) for panel in panels)
    marked = [panel for panel in panels if has_dark_marks(panel)]
    first, second = map(in_picture, _sides(panels))
    red, blue = (mpl.colormaps[COLOURS](place) for place in (0.88, 0.12))
    handles: list[Handle] = [Patch(color=red, label=f"{first} larger"), Patch(color=blue, label=f"{second} larger")]
    if has_grey:
        handles.append(Patch(color=LEFT_OUT_GREY, label="cannot be compared"))
    handles.append(Line2D([], [], color=DARK, lw=0.8, label="cosine of gradients"))
    handles.append(Line2D([], [], color=DARK, lw=0.8, ls=":", label="cancellation (0: opposite)"))
    if marked:
        handles.append(Line2D([], [], color=DARK, ls="", marker="o", ms=2.5, label=_dark_means(marked)))
    return handles


def _sides(panels: Sequence[DifferencePanel]) -> tuple[str, str]:
    """The groups that red and blue stand for, where all panels compare the same two."""
    pairs = {(panel.side_names.get(pair, pair)) for panel in panels for pair in panel.pairs}
    return pairs.pop() if len(pairs) == 1 else ("first group", "second group")


def _dark_means(panels: Sequence[DifferencePanel]) -> str:
    paper = {panel.paper for panel in panels}
    return " / ".join(["q < 0.05"] * (False in paper) + ["paper's p < 0.05 (descriptive)"] * (True in paper))
