"""The picture of a calibration: false-positive rates with their intervals, and power."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autospec.experiments.validation.rates import ordered_tests
from autospec.figures.style import OKABE_ITO, PAGE_IN, TEXT_GREY, print_style
from autospec.store.atomic import write_atomically

PRIMARY = "permutation, family-wise, early"
COLOURS = (*OKABE_ITO, "#000000")
"""As many as there are nulls: the palette with its black."""


def draw_calibration(table: pd.DataFrame, path: Path) -> None:
    """Draw the rates of every test under every null, and the power of the primary test.

    Args:
        table: Rates, with the columns of ``rates.COLUMNS``.
        path: The PNG file.
    """
    power = table["null"].str.contains("effect [0-9]")
    # a label that goes with age and motion, and these with the data, is no null
    nulls = table[~power & ~table["null"].str.endswith("unequal age and motion")]
    tests = ordered_tests(nulls)
    with print_style():
        figure = Figure(figsize=(PAGE_IN, 0.14 * len(tests) + 1.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[2, 1])
        _draw_nulls(left, nulls, tests)
        _draw_power(right, table[power & (table["test"] == PRIMARY)])
        with write_atomically(path) as temporary:
            figure.savefig(temporary, format="png")


def _draw_nulls(axis: Axes, nulls: pd.DataFrame, tests: list[str]) -> None:
    """One row for each test, one line for each null: its exact 99 % interval."""
    cells = list(dict.fromkeys(zip(nulls["null"], nulls["groups"], strict=True)))
    names = list(dict.fromkeys(nulls["null"]))
    for number, (null, groups) in enumerate(cells):
        part = nulls[(nulls["null"] == null) & (nulls["groups"] == groups)].set_index("test")
        heights = [tests.index(test) + 0.7 * (number / max(len(cells) - 1, 1) - 0.5) for test in part.index]
        colour = COLOURS[names.index(null) % len(COLOURS)]
        axis.hlines(heights, part["low"], part["high"], color=colour, lw=0.8)
        label = null if null not in [text.get_label() for text in axis.collections[:-1]] else None
        axis.collections[-1].set_label(label or "_")
        marker = "o" if len(set(groups.split(":"))) == 1 else "s"
        axis.plot(part["rate"], heights, marker, color=colour, ms=1.4)
    axis.axvline(0.05, color=TEXT_GREY, lw=0.6, zorder=0)
    axis.set_yticks(range(len(tests)), tests)
    axis.set_ylim(len(tests) - 0.4, -0.6)
    axis.set_xlim(0, 1)
    axis.set_xlabel("false-positive rate at 0.05 (○ equal groups, □ 1:3), exact 99 % interval")
    if cells:
        axis.legend(fontsize=5.5, loc="upper right", frameon=False)


def _draw_power(axis: Axes, power: pd.DataFrame) -> None:
    """Power of the primary test against the simulated effect, a line for each number of subjects."""
    for colour, (groups, part) in zip(OKABE_ITO, power.groupby("groups", sort=False), strict=False):
        effect = [float(re.search(r"effect ([0-9.]+)", text).group(1)) for text in part["null"]]  # type: ignore[union-attr]
        axis.fill_between(effect, part["low"], part["high"], color=colour, alpha=0.15, lw=0)
        axis.plot(effect, part["rate"], "o-", color=colour, ms=2, lw=0.9, label=f"{groups} subjects")
    axis.axhline(0.05, color=TEXT_GREY, lw=0.6, zorder=0)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("simulated effect\n(multiple of that of schizophrenia)")
    axis.set_ylabel("power of the primary test, family-wise, early")
    if len(power):
        axis.legend(frameon=False)
