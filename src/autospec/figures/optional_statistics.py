"""Pictures of what is recorded on request: spectra along the tied dimension, ranks, and subspaces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from autospec.figures.contents import short_name
from autospec.figures.saving import save_picture
from autospec.figures.style import COLUMN_IN, OKABE_ITO, PAGE_IN, TEXT_GREY, print_style
from autospec.harmless import in_picture

DASHES = ("-", (0, (4, 1)), (0, (4, 1, 1, 1)))
"""Of the groups' lines, one kind for each round of the colours."""

Layers = Sequence[tuple[str, xr.Dataset]]
"""Layers' names and statistics, as ``Spectra[layer]`` gives them."""


def draw_tied(layers: Layers, footer: str, path: Path) -> None:
    """Draw the gradient's singular values at each position, of every group, at the last recorded epoch.

    Args:
        layers: Layers with tied weights.
        footer: What stands below.
        path: The picture.
    """
    groups = [str(group) for group in layers[0][1]["group"].values]
    with print_style():
        figure = Figure(figsize=(PAGE_IN, 0.6 + 1.3 * len(layers)), layout="constrained")
        axes = figure.subplots(len(layers), len(groups), squeeze=False)
        for row, (name, values) in zip(axes, layers, strict=True):
            last = values["tied_gradient"].isel(epoch=-1)
            top = max(float(last.max(skipna=True).fillna(0.0)), 1e-30)
            for axis, group in zip(row, groups, strict=True):
                image = _draw_positions(axis, last.sel(group=group), LogNorm(top * 1e-6, top))
                axis.set_title(in_picture(group))
            row[0].set_ylabel(f"{in_picture(short_name(name))}\nindex")
            figure.colorbar(image, ax=list(row), label="singular value", shrink=0.9)
        figure.supxlabel(f"position\n{in_picture(footer)}", fontsize=5.5, color=TEXT_GREY)
        save_picture(figure, [path])


def draw_ranks(layers: Layers, footer: str, path: Path) -> None:
    """Draw ranks over epochs, by group: numerical (line) and effective (dotted), with the bound that always holds.

    In grey, where a layer stands in a linear chain, the bound that the rest of the chain puts on all groups alike.

    Args:
        layers: Layers with recorded ranks.
        footer: What stands below.
        path: The picture.
    """
    chained = any("rank_chain" in values for _, values in layers)
    with print_style():
        figure = Figure(figsize=(COLUMN_IN, 0.6 + 1.2 * len(layers)), layout="constrained")
        for axis, (name, values) in zip(figure.subplots(len(layers), 1, squeeze=False)[:, 0], layers, strict=True):
            for (dashes, colour), group in zip(cycle(product(DASHES, OKABE_ITO)), values["group"].values, strict=False):
                of_group = values.sel(group=group)
                ranks = of_group["rank_numerical"]
                axis.plot(values["epoch"], ranks, color=colour, lw=0.9, ls=dashes, label=in_picture(str(group)))
                axis.plot(values["epoch"], of_group["rank_effective"], color=colour, lw=0.9, ls=":")
                axis.plot(values["epoch"], of_group["rank_bound"], color=colour, lw=0.5, ls="--")
            if "rank_chain" in values:
                axis.plot(values["epoch"], values["rank_chain"], color=TEXT_GREY, lw=0.7, ls="-.", label="chain")
            axis.set_title(in_picture(short_name(name)), loc="left")
            axis.set_ylabel("rank")
            axis.set_ylim(bottom=0)
        axis.legend(frameon=False, ncols=3)
        chain = "; dash-dot: bound by the linear chain that the layer stands in" if chained else ""
        figure.supxlabel(
            f"epoch\nline: numerical; dotted: effective; dashed: bound{chain}. {in_picture(footer)}", fontsize=5.5
        )
        save_picture(figure, [path])


def draw_subspaces(layers: Layers, pairs: Sequence[tuple[str, str]], footer: str, path: Path) -> None:
    """Draw the largest principal angle of each layer's leading subspaces: between groups, and between records.

    Args:
        layers: Layers with recorded subspaces.
        pairs: The pairs of groups.
        footer: What stands below.
        path: The picture.
    """
    with print_style():
        figure = Figure(figsize=(PAGE_IN, 0.7 + 1.2 * len(layers)), layout="constrained")
        axes = figure.subplots(len(layers), 2, squeeze=False, sharex=True, sharey=True)
        for (between, along), (name, values) in zip(axes, layers, strict=True):
            largest = values[["subspace_groups", "subspace_epochs"]].isel(angle=-1) * (180 / np.pi)
            for (a, b), colour in zip(pairs, cycle(OKABE_ITO), strict=False):
                angles = largest["subspace_groups"].sel(group=a, other_group=b)
                _draw_sides(between, angles, colour, f"{a} / {b}")
            for group, colour in zip(dict.fromkeys(sum(pairs, ())), cycle(OKABE_ITO), strict=False):
                _draw_sides(along, largest["subspace_epochs"].sel(group=group), colour, group)
            between.set_title(f"{in_picture(short_name(name))}: between groups", loc="left")
            along.set_title("from one record to the next", loc="left")
            between.set_ylabel("degrees")
            between.set(ylim=(-3, 93), yticks=[0, 45, 90])
        for axis in axes[0]:
            axis.legend(frameon=False, ncols=2, fontsize=5.5)
        directions = layers[0][1].sizes["angle"]
        figure.supxlabel(
            f"epoch\nlargest principal angle of the subspaces of {directions} leading singular vectors; line: among "
            f"outputs; dotted: among inputs; absent where a subspace is not determined. {in_picture(footer)}",
            fontsize=5.5,
            color=TEXT_GREY,
        )
        save_picture(figure, [path])


def _draw_sides(axis: Axes, angles: xr.DataArray, colour: str, label: str) -> None:
    axis.plot(angles["epoch"], angles.sel(side="output"), color=colour, lw=0.9, label=in_picture(label))
    axis.plot(angles["epoch"], angles.sel(side="input"), color=colour, lw=0.9, ls=":")


def _draw_positions(axis: Axes, values: xr.DataArray, norm: LogNorm):  # type: ignore[no-untyped-def]
    # values below the range are drawn in its lowest colour, a zero among them
    shown = np.clip(values.values.T, norm.vmin, None)
    edges = (-0.5, shown.shape[1] - 0.5, shown.shape[0] + 0.5, 0.5)
    return axis.imshow(shown, aspect="auto", norm=norm, cmap="viridis", interpolation="nearest", extent=edges)
