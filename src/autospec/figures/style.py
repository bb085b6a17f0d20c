"""How figures look: sizes for print, a palette that colour-blind readers can tell apart."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import MaxNLocator

COLUMN_IN = 3.5
PAGE_IN, TALLEST_IN = 7.2, 9.5
SMALLEST_PT = 6.0
"""No text is smaller, in print at full size."""
DPI = 300

# Okabe and Ito's colours in an order that keeps neighbours apart; black is left to the text
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
FLOOR_GREY = "#E9E9E9"
LEFT_OUT_GREY = "#B9B9B9"
TEXT_GREY = "#555555"

Colour = tuple[float, float, float]


@contextlib.contextmanager
def print_style() -> Iterator[None]:
    """Draw with the settings of every picture while the block lasts."""
    settings: dict[Any, Any] = {
        "font.size": 6.5,
        "axes.titlesize": 6.5,
        "axes.labelsize": 6.5,
        "xtick.labelsize": 6,
        "ytick.labelsize": 6,
        "legend.fontsize": 6.5,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "ytick.minor.size": 1.2,
        "ytick.minor.width": 0.4,
        "lines.solid_capstyle": "round",
        "pdf.fonttype": 42,
        "savefig.dpi": DPI,
    }
    with mpl.rc_context(settings):
        yield


def whole_epochs(axis: Axes) -> None:
    """Let an axis over epochs have ticks at whole epochs only."""
    axis.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))


def group_colours(groups: Sequence[str]) -> dict[str, str]:
    """Return one colour for each group, in their order; of a rainbow where they are more than the palette has."""
    if len(groups) <= len(OKABE_ITO):
        return dict(zip(groups, OKABE_ITO, strict=False))
    places = np.linspace(0.05, 0.95, len(groups))
    return {group: to_hex(mpl.colormaps["turbo"](place)) for group, place in zip(groups, places, strict=True)}


def shade(colour: str, place: int, places: int) -> Colour:
    """Return a colour that gets lighter with the singular value's place: the first is full, the last pale."""
    paleness = 0.6 * place / max(places - 1, 1)
    red, green, blue = (1 - paleness) * np.array(to_rgb(colour)) + paleness
    return float(red), float(green), float(blue)


def group_grey(place: int, places: int) -> Colour:
    """Return the grey of the whole batch's singular value at a place: from middle grey to nearly white."""
    grey = 0.55 + 0.35 * place / max(places - 1, 1)
    return grey, grey, grey


@dataclass(frozen=True)
class Frame:
    """The room around the axes of a part of a picture, in inches, so that text keeps its place at every size."""

    width: float
    height: float
    left: float = 0.42
    right: float = 0.12
    top: float = 0.38
    bottom: float = 0.34

    def fractions(self) -> dict[str, float]:
        """Return left, right, bottom and top as matplotlib's grids take them."""
        return {
            "left": self.left / self.width,
            "right": 1 - self.right / self.width,
            "bottom": self.bottom / self.height,
            "top": 1 - self.top / self.height,
        }

    def gap(self, inches: float, across: int, of: float) -> float:
        """Return a distance between ``across`` neighbours in inches, as a share of their mean extent."""
        room = of - (across - 1) * inches
        return inches / (room / across)

    @property
    def inner_width(self) -> float:
        """The width of the axes, in inches."""
        return self.width - self.left - self.right

    @property
    def inner_height(self) -> float:
        """The height of the axes, in inches."""
        return self.height - self.top - self.bottom
