"""Whole pictures: a figure of eight panels, and each panel by itself."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath

from autospec.figures.contents import DifferencePanel, Provenance, SpectraPanel
from autospec.figures.difference_panel import DARK, blocks_of, draw_differences
from autospec.figures.saving import Picture, save_picture
from autospec.figures.spectra_panel import FEWEST_FOR_BAND, draw_spectra, rows_needed
from autospec.figures.style import (
    COLUMN_IN,
    FLOOR_GREY,
    LEFT_OUT_GREY,
    PAGE_IN,
    TEXT_GREY,
    Frame,
    group_colours,
    print_style,
)
from autospec.harmless import in_picture

Panel = SpectraPanel | DifferencePanel

SPECTRA_ROW_IN, DIFFERENCE_ROW_IN, HEAD_IN, LINE_IN = 1.55, 1.9, 0.42, 0.105
HEAD_ROW_IN = 0.12
LEGEND_PT, HANDLE_EM = 6.5, 2.3
"""The legend's font size, and what stands around each of its words: handle, padding and the space between columns."""
LINE_CHARACTERS = {COLUMN_IN: 80, PAGE_IN: 174}
DIFFERENCE_ROOM = {"left": 0.8, "right": 0.55}


def draw_figure(number: int, title: str, panels: Sequence[Panel], paths: Sequence[Path]) -> None:
    """Draw the whole figure: spectra panels two in a row, difference panels across the page.

    Args:
        number: The figure's number.
        title: Its title.
        panels: Its panels.
        paths: The files; their endings say which kind of picture.
    """
    spectra = [panel for panel in panels if isinstance(panel, SpectraPanel)]
    differences = [panel for panel in panels if isinstance(panel, DifferencePanel)]
    rows: list[Sequence[Panel]] = [spectra[at : at + 2] for at in range(0, len(spectra), 2)]
    rows += [[panel] for panel in differences]
    footer = _footer_lines(panels, width=168)
    heights = [HEAD_IN, *(_height(row[0], PAGE_IN / len(row)) for row in rows), LINE_IN * (len(footer) + 1)]
    with print_style():
        figure = Figure(figsize=(PAGE_IN, sum(heights)))
        parts = _split_vertically(figure, heights)
        simulated = " (simulated data)" if panels[0].provenance.simulated else ""
        _head(parts[0], f"Figure {number}   {title}{simulated}", panels, PAGE_IN)
        for row, part, height in zip(rows, parts[1:-1], heights[1:-1], strict=True):
            places = part.subfigures(1, len(row), squeeze=False, wspace=0).flat
            for panel, place in zip(row, places, strict=True):
                _draw_panel(panel, place, PAGE_IN / len(row), height)
        _foot(parts[-1], footer)
        save_picture(figure, paths)


def draw_panel(panel: Panel, path: Path) -> None:
    """Draw one panel by itself, one column wide.

    Args:
        panel: The panel.
        path: The file.
    """
    with print_style():
        save_picture(_panel_figure(panel, COLUMN_IN), [path])


def draw_page(panel: Panel) -> Picture:
    """Draw one panel by itself, as wide as a page.

    Args:
        panel: The panel.

    Returns:
        The picture, which is not saved yet.
    """
    with print_style():
        figure = _panel_figure(panel, PAGE_IN)
        figure.draw_without_rendering()  # ticks are made when they are drawn, in the style that holds then
    return figure


def _panel_figure(panel: Panel, width: float) -> Picture:
    """One panel under its legend and above its footer."""
    footer = _footer_lines([panel], width=LINE_CHARACTERS[width])
    heights = [HEAD_ROW_IN * (1 + _legend_rows([panel], width)), _height(panel, width), LINE_IN * (len(footer) + 1)]
    figure = Picture(figsize=(width, sum(heights)))
    parts = _split_vertically(figure, heights)
    _head(parts[0], "", [panel], width)
    _draw_panel(panel, parts[1], width, heights[1])
    _foot(parts[-1], footer)
    return figure


def _split_vertically(figure: Figure, heights: Sequence[float]) -> list[SubFigure]:
    """Parts of a picture below one another, with heights in inches."""
    return list(figure.subfigures(len(heights), 1, height_ratios=heights, hspace=0, squeeze=False)[:, 0])


def _height(panel: Panel, width: float) -> float:
    """The height in inches that a panel takes."""
    if isinstance(panel, SpectraPanel):
        return SPECTRA_ROW_IN + (rows_needed(panel, _columns(panel, width)) - 1) * (SPECTRA_ROW_IN - 0.3)
    rows = -(-len(blocks_of(panel)) // _columns(panel, width))
    return DIFFERENCE_ROW_IN + 0.14 * (len(panel.pairs) > 1) + (rows - 1) * (DIFFERENCE_ROW_IN - 0.1)


def _columns(panel: Panel, width: float) -> int:
    """How many layers, or blocks of a difference panel, stand side by side: two or four across a page."""
    if isinstance(panel, SpectraPanel):
        return min(len(panel.layers), 2 if width < PAGE_IN else 4)
    if width < PAGE_IN:
        return 1
    return min(len(blocks_of(panel)), 2 if len(panel.layers) <= 2 else min(4, len(panel.layers)))


def _draw_panel(panel: Panel, part: SubFigure, width: float, height: float) -> None:
    above = 1 - 0.1 / height
    part.text(0.05 / width, above, in_picture(panel.letter), fontsize=9, fontweight="bold", va="center")
    part.text((0.25 if panel.letter else 0.05) / width, above, in_picture(panel.title), fontsize=7.5, va="center")
    if isinstance(panel, SpectraPanel):
        draw_spectra(panel, part, Frame(width, height, left=0.5, right=0.24), _columns(panel, width))
    else:
        top = 0.38 if len(panel.pairs) == 1 else 0.52
        draw_differences(panel, part, Frame(width, height, top=top, **DIFFERENCE_ROOM), _columns(panel, width))


def _head(part: SubFigure, title: str, panels: Sequence[Panel], width: float) -> None:
    if title:
        part.text(0.007, 0.8, in_picture(title), fontsize=9, va="center")
    handles = _legend(panels)
    part.legend(
        handles=handles,
        loc="lower left",
        ncols=-(-len(handles) // _legend_rows(panels, width)),
        frameon=False,
        borderaxespad=0.1,
        columnspacing=0.9,
        handlelength=1.0,
        handletextpad=0.4,
        fontsize=LEGEND_PT,
    )


def _legend_rows(panels: Sequence[Panel], width: float) -> int:
    """How many rows the legend takes, by the width of its words."""
    words = [TextPath((0, 0), str(handle.get_label()), size=LEGEND_PT) for handle in _legend(panels)]
    needed = sum(text.get_extents().width + HANDLE_EM * LEGEND_PT for text in words) / 72
    return max(1, math.ceil(needed / width))


def _legend(panels: Sequence[Panel]) -> list[Line2D | Patch]:
    """What colours and marks say."""
    spectra = [panel for panel in panels if isinstance(panel, SpectraPanel)]
    handles: list[Line2D | Patch] = []
    if spectra:
        colours = group_colours(spectra[0].groups)
        names = spectra[0].group_labels
        handles += [Line2D([], [], color=colours[g], lw=2, label=in_picture(names[g])) for g in spectra[0].groups]
        handles.append(Line2D([], [], color="0.65", lw=0.8, label="all, every index"))
        handles.append(Patch(color=FLOOR_GREY, label="noise"))
    if len(spectra) < len(panels):
        handles.append(Patch(color=LEFT_OUT_GREY, label="cannot be compared"))
    if any(isinstance(panel, DifferencePanel) and panel.tested for panel in panels):
        handles.append(Line2D([], [], color=DARK, ls="", marker="o", ms=2.5, label=_dark_means(panels)))
    return handles


def _dark_means(panels: Sequence[Panel]) -> str:
    """What a dark mark or bar on a margin says."""
    paper = {panel.paper for panel in panels if isinstance(panel, DifferencePanel)}
    return " / ".join(["q < 0.05"] * (False in paper) + ["paper's p < 0.05 (descriptive)"] * (True in paper))


def _foot(part: SubFigure, lines: Sequence[str]) -> None:
    part.text(0.01, 0.96, "\n".join(lines), fontsize=5.5, color=TEXT_GREY, va="top", linespacing=1.3)


def _footer_lines(panels: Sequence[Panel], width: int) -> list[str]:
    """What the data are, how groups are compared, and the runs that are shown."""
    first = panels[0].provenance
    sentences = [_data_sentence(first)]
    if any(isinstance(panel, SpectraPanel) for panel in panels):
        sentences.append(
            "Spectra: singular values of each group's mean gradient; hue tells the group, a paler one a higher index; "
            "grey: every index of the whole batch; shade: below its noise floor."
        )
    seeds = max((panel.seeds for panel in panels), default=1)
    if seeds > 1:
        band = "mean and standard deviation" if seeds >= FEWEST_FOR_BAND else "a line for each"
        sentences.append(f"{seeds} seeds: {band} in panels of spectra; maps are of the first, tests of all together.")
    differences = [panel for panel in panels if isinstance(panel, DifferencePanel)]
    if differences:
        sentences += _difference_sentences(differences)
    if panels[0].provenance.layers_shown:
        sentences.append(panels[0].provenance.layers_shown)
    runs = dict.fromkeys(f"{panel.letter} {panel.provenance.run_id}" for panel in panels if panel.provenance.run_id)
    if runs:
        sentences.append(f"Run{'s' * (panels[0].letter != '')}: {', '.join(runs)}.".replace(":  ", ": "))
    wrapped: list[str] = []
    for sentence in sentences:
        wrapped += textwrap.wrap(in_picture(sentence), width)
    return wrapped


def _difference_sentences(panels: Sequence[DifferencePanel]) -> list[str]:
    """How a difference is to be read, and what is not tested."""
    sentences = [
        "Differences: log2 ratio of the first group's singular values to the second's, grey where it cannot be "
        "compared (beyond the rank bound, or below a noise floor). cosine: of the two groups' gradients; dotted: "
        "their cancellation, near 0 where they are opposite. A difference is an association with the label, which need "
        "not be its cause.",
    ]
    if any(panel.tested for panel in panels):
        sentences.append(
            "p: labels permuted, at fixed weights unless a panel says otherwise; one distance over the trajectory, "
            "family-wise over layers and pairs."
        )
    if any(panel.paper for panel in panels):
        sentences.append(
            "Margins: medians, dark where the paper's t-test of scaled values has p < 0.05; these t-tests are "
            "descriptive, not calibrated."
        )
    if any(panel.tested and not panel.paper for panel in panels):
        sentences.append(
            "Margins: medians less those of permuted labels, dark where q < 0.05 (Benjamini-Hochberg, exploratory); "
            "plain medians where there is no test."
        )
    if not any(panel.tested for panel in panels):
        sentences.append("Margins: medians.")
    return sentences + [_of_panel(panel, text) for panel in panels for text in panel.left_out]


def _of_panel(panel: Panel, text: str) -> str:
    """A sentence that says whose it is, where there are panels with letters."""
    return f"{panel.letter}: {text}" if panel.letter else text


def _data_sentence(provenance: Provenance) -> str:
    few = f" (fewer than {provenance.min_group})"
    sizes = ", ".join(
        f"{group}: n = {size:.0f}{few if size < provenance.min_group else ''}"
        for group, size in provenance.sizes.items()
        if not math.isnan(size)
    )
    kind = {True: " (SIMULATED DATA)", False: " (real data)", None: ""}[provenance.simulated]
    seed = "" if provenance.seed is None else f"seed {provenance.seed}"
    return "; ".join(text for text in (f"Data: {provenance.source}{kind}", sizes, seed) if text) + "."
