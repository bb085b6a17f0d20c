"""The benchmark as bars: what each method costs, averaged over the paper's architectures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autospec.experiments.benchmark.arms import ENGINES, PLAIN_AGAIN
from autospec.experiments.benchmark.problems import SHAPES
from autospec.experiments.benchmark.table import Row

OWN, OTHER = "#0072B2", "#999999"


def draw_bars(rows: Sequence[Row], path: Path) -> None:
    """Write a picture: a bar for each method, the geometric mean, with a dot for every model that it can do.

    Args:
        rows: the table's.
        path: the picture's file.
    """
    from matplotlib.figure import Figure

    of_methods = methods_of(rows)
    names = sorted(of_methods, key=lambda name: _mean(of_methods[name]))
    figure = Figure(figsize=(6.5, 0.4 + 0.3 * len(names)), layout="constrained", dpi=150)
    axes = figure.subplots()
    for place, name in enumerate(names):
        values = of_methods[name]
        colour = OWN if name.split(",")[0] in ENGINES else OTHER
        axes.barh(place, _mean(values), color=colour, height=0.65)
        axes.plot(values, [place] * len(values), ".", color="black", markersize=4)
    most = max(len(values) for values in of_methods.values())
    counts = {name: len(values) for name, values in of_methods.items()}
    labels = [name if counts[name] == most else f"{name} ({counts[name]} of {most} models)" for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50, 100) if tick <= 1.1 * axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_xlim(left=0.9)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("processor time over plain training (bar: geometric mean, dots: models)", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def methods_of(rows: Sequence[Row]) -> dict[str, list[float]]:
    """The time ratios of every method on the paper's architectures."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row.model in SHAPES and row.time_ratio is not None and row.method != PLAIN_AGAIN:
            ratios.setdefault(row.method, []).append(row.time_ratio)
    return ratios


def _mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))
