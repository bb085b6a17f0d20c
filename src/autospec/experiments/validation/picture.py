"""The pictures of a calibration: false-positive rates with their intervals, at most four nulls each, and power."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autospec.experiments.validation.conditions import NULLS, Cell
from autospec.experiments.validation.rates import EFFECT, ordered_tests
from autospec.figures.style import OKABE_ITO, PAGE_IN, TEXT_GREY, print_style
from autospec.store.atomic import write_atomically

PRIMARY = ("permutation, family-wise, early", "permutation, family-wise, late")
NOT_OFFERED = r"^paper|smallest q"
"""Tests that are no evidence, and what controls another rate; the table has them."""
MOST = 0.15
"""Where the axis of rates ends."""


def draw_calibration(table: pd.DataFrame, folder: Path) -> None:
    """Draw the rates of every test that is offered under the nulls, and the power of the primary test.

    Args:
        table: Rates, with the columns of ``rates.COLUMNS``.
        folder: Where the pictures go: ``calibration_<name>.png`` for each of ``NULLS``, and ``calibration_power.png``.
    """
    for name, cells in NULLS.items():
        shown = [cell for cell in cells if len(_of_cell(table, cell))]
        if shown:
            _draw_nulls(table, shown, folder / f"calibration_{name}.png")
    power = table[table["null"].str.contains(EFFECT)]
    if len(power):
        _draw_power(power, folder / "calibration_power.png")


def _of_cell(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    rows = table[(table["null"] == cell.name) & (table["groups"] == cell.condition.groups)]
    return rows[~rows["test"].str.contains(NOT_OFFERED)]


def _draw_nulls(table: pd.DataFrame, cells: Sequence[Cell], path: Path) -> None:
    """One row for each test, one line for each null: its exact 99 % interval."""
    parts = [_of_cell(table, cell) for cell in cells]
    tests = ordered_tests(pd.concat(parts))
    with print_style():
        figure = Figure(figsize=(PAGE_IN, 0.17 * len(tests) + 0.5 + 0.13 * len(cells)), layout="constrained")
        axis = figure.subplots()
        for number, (cell, part) in enumerate(zip(cells, parts, strict=True)):
            colour = OKABE_ITO[number]
            heights = [tests.index(test) + 0.6 * (number / max(len(cells) - 1, 1) - 0.5) for test in part["test"]]
            axis.hlines(heights, part["low"], part["high"].clip(upper=MOST), color=colour, lw=1)
            label = f"{cell.condition.null}, {cell.condition.groups} ({part['runs'].max():,} studies)"
            axis.plot(part["rate"], heights, "o", color=colour, ms=2, label=label)
        axis.axvline(0.05, color=TEXT_GREY, lw=0.6, zorder=0)
        axis.set_yticks(range(len(tests)), tests)
        axis.set_ylim(len(tests) - 0.4, -0.6)
        axis.set_xlim(0, MOST)
        learner = cells[0].name.partition(",")[0]
        axis.set_xlabel(f"{learner}: false-positive rate at 0.05, exact 99 % interval")
        figure.legend(loc="outside upper left", frameon=False, ncols=1)
        _save(figure, path)


def _draw_power(power: pd.DataFrame, path: Path) -> None:
    """Power of the primary test against the simulated effect: early and late, a line for each number of subjects."""
    with print_style():
        figure = Figure(figsize=(PAGE_IN, 2.2), layout="constrained")
        for axis, test in zip(figure.subplots(1, 2, sharey=True), PRIMARY, strict=True):
            _draw_power_of(axis, power[power["test"] == test])
            axis.set_title(test)
        figure.axes[0].set_ylabel("power")
        figure.axes[0].legend(frameon=False)
        _save(figure, path)


def _draw_power_of(axis: Axes, power: pd.DataFrame) -> None:
    for colour, (groups, part) in zip(OKABE_ITO, power.groupby("groups", sort=False), strict=False):
        effect = [float(re.search(r"effect ([0-9.]+)", text).group(1)) for text in part["null"]]  # type: ignore[union-attr]
        axis.fill_between(effect, part["low"], part["high"], color=colour, alpha=0.15, lw=0)
        axis.plot(effect, part["rate"], "o-", color=colour, ms=2, lw=0.9, label=f"{groups} subjects, 99 % interval")
    axis.axhline(0.05, color=TEXT_GREY, lw=0.6, zorder=0)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("simulated effect (multiple of that of schizophrenia)")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png")
