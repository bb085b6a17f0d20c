"""Panels A–F: the singular values of each layer's gradient over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from autospec.figures.contents import LayerTitle, SpectraPanel
from autospec.figures.style import FLOOR_GREY, TEXT_GREY, Colour, Frame, group_colours, group_grey, shade, whole_epochs
from autospec.store.schema import ALL

FEWEST_FOR_BAND = 5
"""With fewer seeds each is drawn as a line: their deviation would say little."""
COLUMN_GAP_IN, ROW_GAP_IN = 0.52, 0.4
LABEL_IN = 0.1
"""The height of a label at the end of a line."""


def draw_spectra(panel: SpectraPanel, part: SubFigure, frame: Frame, columns: int) -> None:
    """Draw one axis per layer: every index of the whole batch behind, a few indices of each group in front.

    Args:
        panel: What is drawn.
        part: The part of the picture to draw in.
        frame: The room around its axes.
        columns: How many axes stand side by side.
    """
    rows = rows_needed(panel, columns)
    gaps = {
        "wspace": frame.gap(COLUMN_GAP_IN, columns, frame.inner_width),
        "hspace": frame.gap(ROW_GAP_IN, rows, frame.inner_height),
    }
    grid = part.add_gridspec(rows, columns, **frame.fractions(), **gaps)
    for place, layer in enumerate(panel.layers):
        row, column = divmod(place, columns)
        axis = part.add_subplot(grid[row, column])
        draw_layer(panel, layer, axis)
        if column == 0:
            axis.set_ylabel("singular value")
        if place >= len(panel.layers) - columns:
            axis.set_xlabel("epoch", labelpad=1)


def rows_needed(panel: SpectraPanel, columns: int) -> int:
    """Count the rows of axes that a panel takes."""
    return -(-len(panel.layers) // columns)


def draw_layer(panel: SpectraPanel, layer: LayerTitle, axis: Axes) -> None:
    """Draw the spectra of one layer.

    Args:
        panel: What is drawn.
        layer: The layer.
        axis: The axis to draw in.
    """
    table = panel.frame[panel.frame["layer"] == layer.name]
    seeds = _seeds(table)
    table = seeds[0]
    spectra = [_spectra_by_group(run, (ALL, *panel.groups)) for run in seeds]
    front = front_indices(int(table["index"].max()))
    whole = spectra[0][ALL]
    greys = [group_grey(place, whole.shape[1]) for place in range(whole.shape[1])]
    colours = group_colours(panel.groups)
    shades = {group: [shade(colours[group], place, len(front)) for place in range(len(front))] for group in colours}
    whole_epochs(axis)
    axis.set_title(str(layer), loc="left", pad=3)

    for index, grey in zip(whole.columns, greys, strict=True):
        axis.plot(whole.index, whole[index], color=grey, lw=0.4, zorder=1, **_dot(whole))
    ends: dict[int, list[float]] = {index: [] for index in front}
    for group in panel.groups:
        values = spectra[0][group]
        for place, shown in enumerate(front):
            _draw_seeds(axis, [run[group][shown] for run in spectra], shades[group][place], 3 - place * 0.1)
            ends[shown].append(values[shown].iloc[-1])
    axis.set_yscale("log")
    axis.margins(x=0)
    _limit(axis, table)
    _shade_floor(axis, table[table["group"] == ALL])
    _label_ends(axis, ends)


def _seeds(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The table of each seed's run, in their order."""
    if "seed" not in table.columns:
        return [table]
    return [run for _, run in table.groupby("seed", sort=False)]


def _draw_seeds(axis: Axes, lines: Sequence[pd.Series], colour: Colour, order: float) -> None:
    """A line for each seed; from five seeds up their mean, on the scale of the axis, and a band of one deviation."""
    if len(lines) < FEWEST_FOR_BAND:
        for line in lines:
            axis.plot(line.index, line, color=colour, lw=0.9 if len(lines) == 1 else 0.5, zorder=order, **_dot(line))
        return
    logarithms = np.log(np.stack([line.to_numpy(dtype=np.float64) for line in lines]))
    mean, deviation = logarithms.mean(0), logarithms.std(0, ddof=1)
    low, high = np.exp(mean - deviation), np.exp(mean + deviation)
    axis.fill_between(lines[0].index, low, high, color=colour, alpha=0.25, lw=0, zorder=order - 0.05)
    axis.plot(lines[0].index, np.exp(mean), color=colour, lw=0.9, zorder=order)


def _dot(line: pd.Series | pd.DataFrame) -> dict[str, Any]:
    """A mark for a line of one point, which has no length."""
    return {"marker": "o", "ms": 2.5} if len(line) == 1 else {}


def front_indices(width: int) -> tuple[int, ...]:
    """List the indices drawn for each group, for a spectrum of so many singular values."""
    return tuple(index for index in ((1, 4, 8) if width >= 8 else (1, 2, 4)) if index <= width)


def _spectra_by_group(run: pd.DataFrame, groups: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Of some groups the scaled values above the floor, epoch × index."""
    return {str(group): _above_floor(part) for group, part in run.groupby("group", sort=False) if group in groups}


def _above_floor(part: pd.DataFrame) -> pd.DataFrame:
    """The scaled values, epoch × index; NaN where they are rounding."""
    kept = part.assign(scaled=part["scaled"].where(part["value"] > part["floor"]))
    return kept.pivot(index="epoch", columns="index", values="scaled")


def _limit(axis: Axes, table: pd.DataFrame) -> None:
    """From a decade below the floor to above the largest value."""
    floor = table.loc[table["scaled_floor"] > 0, "scaled_floor"]
    top = table["scaled"].max()
    if np.isfinite(top) and top > 0 and len(floor):
        axis.set_ylim(floor.median() / 6, top * 3)
    low, high = np.log10(axis.get_ylim())
    axis.yaxis.set_major_locator(LogLocator(numticks=max(3, min(5, int(high - low) + 1))))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: decade(value)))


def decade(value: float) -> str:
    """Write a power of ten without a raised exponent, which would be too small to read.

    Args:
        value: The value.

    Returns:
        Its text.

    Example:
        >>> decade(1e-4), decade(1.0), decade(100.0)
        ('1e-4', '1', '1e2')
    """
    exponent = round(np.log10(value))
    return "1" if exponent == 0 else f"1e{exponent}"


def _shade_floor(axis: Axes, whole: pd.DataFrame) -> None:
    """What lies below the whole batch's noise floor is shade."""
    # a floor that was measured is lower than those between two measured ones: its neighbours', or the shade has slits
    floor = whole.groupby("epoch")["scaled_floor"].first().rolling(3, center=True, min_periods=1).max()
    if len(floor) == 1:  # a single epoch is in the middle of its axis
        axis.axhspan(axis.get_ylim()[0], floor.iloc[0], color=FLOOR_GREY, lw=0, zorder=2)
        return
    axis.fill_between(floor.index, axis.get_ylim()[0], floor, color=FLOOR_GREY, lw=0, zorder=2)


def _label_ends(axis: Axes, ends: dict[int, list[float]]) -> None:
    """σ with its index at the right end of the lines, kept from overlapping."""
    low, high = np.log10(axis.get_ylim())
    taken: list[float] = []
    height_in = axis.get_window_extent().height / axis.figure.dpi
    apart = LABEL_IN / height_in
    for index, values in ends.items():
        finite = [value for value in values if np.isfinite(value) and value > 0]
        if not finite:
            continue
        height = (float(np.mean(np.log10(finite))) - low) / (high - low)
        height = min([height, *(other - apart for other in taken)])
        taken.append(height)
        axis.annotate(
            f"σ{index}",
            (1.0, height),
            xycoords="axes fraction",
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            color=TEXT_GREY,
            annotation_clip=False,
        )
