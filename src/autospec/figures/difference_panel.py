"""Panels G and H: where two groups' spectra differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import SubFigure
from matplotlib.gridspec import SubplotSpec

from autospec.figures.contents import DifferencePanel, LayerTitle
from autospec.figures.style import LEFT_OUT_GREY, SMALLEST_PT, Frame, whole_epochs
from autospec.harmless import in_picture

COLUMN_GAP_IN, ROW_GAP_IN, PAIR_NAME_IN = 0.35, 0.54, 0.14
COSINE_IN = 0.3
"""The height of a block's cosine; the colour bar begins below it."""
LARGEST_RATIO = 2.0
"""The log2 ratio at which the colours end: a factor of four."""
COLOURS = "RdBu_r"
UNIT = "log2 ratio"
FEWEST = 3
"""A margin's bar over fewer values than this is not drawn."""
SIGNIFICANT = 0.05
FEW_EPOCHS = 25
"""With fewer tested epochs the marks of those that differ are larger."""
DARK, PALE, FADED = "#333333", "#9A9A9A", "#DADADA"
FEWEST_CELLS = 0.25
"""A margin is faded where a smaller share of its cells can be compared: a median of the few would mislead."""


@dataclass(frozen=True)
class Block:
    """The tables of one layer and pair."""

    layer: LayerTitle
    pair: tuple[str, str]
    ratios: pd.DataFrame
    tests: pd.DataFrame
    cosines: pd.DataFrame
    verdict: str = ""


def draw_differences(panel: DifferencePanel, part: SubFigure, frame: Frame, columns: int) -> None:
    """Draw one block per layer and pair: cosine, margin over epochs, map over epoch × index, margin over indices.

    Args:
        panel: What is drawn.
        part: The part of the picture to draw in.
        frame: The room around its axes.
        columns: How many blocks stand side by side.
    """
    rows_of_pair = -(-len(panel.layers) // columns)
    rows = rows_of_pair * len(panel.pairs)
    gaps = {
        "wspace": frame.gap(COLUMN_GAP_IN, columns, frame.inner_width),
        "hspace": frame.gap(ROW_GAP_IN + PAIR_NAME_IN * (len(panel.pairs) > 1), rows, frame.inner_height),
    }
    grid = part.add_gridspec(rows, columns, **frame.fractions(), **gaps)
    for number, block in enumerate(blocks_of(panel)):
        pair, place = divmod(number, len(panel.layers))
        row, column = pair * rows_of_pair + place // columns, place % columns
        # the last of its column, so that epochs are named once below each
        last = pair == len(panel.pairs) - 1 and place + columns >= len(panel.layers)
        axes = _draw_block(block, part, grid[row, column], first=column == 0, last=last)
        if place == 0 and len(panel.pairs) > 1:
            _name_pair(panel.pair_names.get(block.pair, f"{block.pair[0]} against {block.pair[1]}"), axes)
    _draw_colour_bar(part, frame)


def rows_needed(panel: DifferencePanel, columns: int) -> int:
    """Count the rows of blocks that a panel takes; each pair begins one."""
    return -(-len(panel.layers) // columns) * len(panel.pairs)


def has_grey_cells(panel: DifferencePanel) -> bool:
    """Whether a map has cells that cannot be compared."""
    return any(block.ratios["log2_ratio"].isna().any() for block in blocks_of(panel))


def has_dark_marks(panel: DifferencePanel) -> bool:
    """Whether a margin has a mark or bar of a test below 0.05."""
    return any(((block.tests["n"] >= FEWEST) & (block.tests["p"] < SIGNIFICANT)).any() for block in blocks_of(panel))


def _draw_colour_bar(part: SubFigure, frame: Frame) -> None:
    """The colours of the maps, at the right of the first row, below its cosine."""
    height = min(frame.inner_height - COSINE_IN, 0.85) / frame.height
    left = 1 - (frame.right - 0.1) / frame.width
    axis = part.add_axes((left, 1 - (frame.top + COSINE_IN) / frame.height - height, 0.07 / frame.width, height))
    colours = ScalarMappable(Normalize(-LARGEST_RATIO, LARGEST_RATIO), COLOURS)
    bar = part.colorbar(colours, cax=axis, extend="both", ticks=[-2, -1, 0, 1, 2])
    bar.outline.set_visible(False)
    bar.set_label(UNIT, labelpad=1)


def blocks_of(panel: DifferencePanel) -> list[Block]:
    """List a block for every layer and pair that a panel shows."""
    return [_block(panel, layer, pair) for pair in panel.pairs for layer in panel.layers]


def _block(panel: DifferencePanel, layer: LayerTitle, pair: tuple[str, str]) -> Block:
    def of(table: pd.DataFrame) -> pd.DataFrame:
        return table[(table["layer"] == layer.name) & (table["group_a"] == pair[0]) & (table["group_b"] == pair[1])]

    verdict = panel.verdicts.get((layer.name, *pair), "")
    return Block(layer, pair, of(panel.ratios), of(panel.tests), of(panel.cosines), verdict)


def _draw_block(block: Block, figure: SubFigure, place: SubplotSpec, first: bool, last: bool) -> Axes:
    """Draw one block; the axis at its top."""
    grid = place.subgridspec(3, 2, width_ratios=[1, 0.22], height_ratios=[0.3, 0.36, 1], hspace=0.26, wspace=0.06)
    heat = figure.add_subplot(grid[2, 0])
    cosine = figure.add_subplot(grid[0, 0], sharex=heat)
    over_epochs = figure.add_subplot(grid[1, 0], sharex=heat)
    over_indices = figure.add_subplot(grid[2, 1], sharey=heat)
    cosine.set_title(f"{block.layer}", loc="left", pad=3 if not block.verdict else 11)
    cosine.annotate(
        in_picture(block.verdict),
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 3.5),
        textcoords="offset points",
        fontsize=SMALLEST_PT,
    )
    _draw_cosine(cosine, block.cosines)
    shares = _shares(block.ratios)
    _draw_epoch_margin(over_epochs, block.tests[block.tests["per"] == "epoch"], shares["epoch"])
    _draw_map(heat, block.ratios)
    whole_epochs(heat)
    _draw_index_margin(over_indices, block.tests[block.tests["per"] == "index"], shares["index"])
    for axis in (cosine, over_epochs):
        axis.tick_params(labelbottom=False)
    over_indices.tick_params(labelleft=False)
    if first:
        for axis, text in ((cosine, "cosine"), (over_epochs, f"median\n{UNIT}"), (heat, "index")):
            axis.set_ylabel(text, rotation=0, ha="right", va="center")
            axis.yaxis.set_label_coords(-0.3 / (axis.get_position().width * figure.bbox.width / figure.dpi), 0.5)
    if last:
        heat.set_xlabel("epoch", labelpad=1)
        over_indices.set_xlabel(UNIT, labelpad=1)
    return cosine


def _name_pair(name: str, top: Axes) -> None:
    """Which groups a row of blocks compares, above its first."""
    top.annotate(
        in_picture(name),
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 22),
        textcoords="offset points",
        fontstyle="italic",
    )


def _draw_cosine(axis: Axes, cosines: pd.DataFrame) -> None:
    axis.axhline(0, color=FADED, lw=0.5)
    dot = "o" if len(cosines) == 1 else None  # a line of one point has no length
    axis.plot(cosines["epoch"], cosines["cosine"], color=DARK, lw=0.8, marker=dot, ms=2)
    axis.plot(cosines["epoch"], cosines["cancellation"], color=DARK, lw=0.6, ls=":")
    axis.set_ylim(-1.1, 1.1)
    axis.set_yticks([-1, 1])


def _draw_map(axis: Axes, ratios: pd.DataFrame) -> None:
    wide = ratios.pivot(index="index", columns="epoch", values="log2_ratio")
    axis.set_facecolor(LEFT_OUT_GREY)
    axis.pcolormesh(
        _edges(wide.columns.to_numpy(dtype=float)),
        _edges(wide.index.to_numpy(dtype=float)),
        np.ma.masked_invalid(wide.to_numpy()),
        cmap=COLOURS,
        vmin=-LARGEST_RATIO,
        vmax=LARGEST_RATIO,
        rasterized=True,
    )
    axis.invert_yaxis()
    highest = int(wide.index.max())
    axis.set_yticks([1, *range(10, highest + 1, 10)] if highest > 8 else range(1, highest + 1))


def _shares(ratios: pd.DataFrame) -> dict[str, pd.Series]:
    """By epoch and by index, the share of cells that can be compared."""
    known = ratios["log2_ratio"].notna()
    return {name: known.groupby(ratios[name]).mean() for name in ("epoch", "index")}


def _draw_epoch_margin(axis: Axes, tests: pd.DataFrame, shares: pd.Series) -> None:
    """The median log2 ratio over indices; a dark mark at each epoch where the test over indices is below 0.05.

    Marks, not a line: one of a single epoch would have no length.
    """
    axis.axhline(0, color=FADED, lw=0.5)
    median = tests["median_log2_ratio"].where(tests["n"] >= FEWEST)
    trusted = median.where(_is_trusted(tests, shares))
    axis.plot(tests["at"], median, color=FADED, lw=0.8)
    axis.plot(tests["at"], trusted, color=PALE, lw=0.8)
    size = 2.2 if len(tests) < FEW_EPOCHS else 1.4
    significant = tests["p"] < SIGNIFICANT
    axis.plot(tests["at"][significant], median[significant], "o", color=DARK, ms=size, mew=0)
    reach = _reach(trusted)
    axis.set_ylim(-1.1 * reach, 1.1 * reach)
    axis.set_yticks([-reach, reach], [f"{-reach:.1f}", f"{reach:.1f}"])


def _draw_index_margin(axis: Axes, tests: pd.DataFrame, shares: pd.Series) -> None:
    """The median log2 ratio over epochs, dark at indices where the test over epochs is below 0.05."""
    kept = tests[tests["n"] >= FEWEST]
    trusted = _is_trusted(kept, shares)
    colours = np.where(kept["p"] < SIGNIFICANT, DARK, np.where(trusted, PALE, FADED))
    axis.barh(kept["at"], kept["median_log2_ratio"], height=0.7, color=colours)
    axis.axvline(0, color=FADED, lw=0.5)
    reach = _reach(kept["median_log2_ratio"][trusted])
    axis.set_xlim(-1.3 * reach, 1.3 * reach)
    axis.set_xticks([-reach, 0, reach], ["", f"±{reach:.1f}", ""])  # a margin is too narrow for two numbers


def _is_trusted(tests: pd.DataFrame, shares: pd.Series) -> pd.Series:
    """Of each row whether enough cells of its epoch or index can be compared."""
    return tests["at"].map(shares).fillna(0.0) >= FEWEST_CELLS


def _reach(medians: pd.Series) -> float:
    """How far a margin's axis reaches from 0, to one digit: the largest median, and at least half a doubling."""
    largest = float(medians.abs().max())  # NaN where there is none
    return max(0.5, math.ceil(10 * largest) / 10) if math.isfinite(largest) else 0.5


def _edges(centres: np.ndarray) -> np.ndarray:
    """The borders between places around their centres."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
