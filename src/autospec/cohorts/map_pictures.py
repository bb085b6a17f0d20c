"""Pictures of component maps by nilearn, each cut through its peak."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from nibabel import Nifti1Image

COLUMNS = 9
MARGIN = 0.004
LEFT = 0.015


def row_count(n_maps: int) -> int:
    """How many rows of pictures so many maps take.

    Args:
        n_maps: How many maps are drawn.

    Returns:
        The number of rows.
    """
    return -(-n_maps // COLUMNS)


def draw_maps(
    figure: Figure, share: float, maps: Any, mask: Any, affine: Any, names: Sequence[tuple[str, str]]
) -> None:
    """Draw mean maps over the MNI brain, at the height of their peaks.

    Args:
        figure: Where to draw.
        share: The lowest part of the figure that they take.
        maps: (components, voxels of the mask).
        mask: (x, y, z).
        affine: (4, 4) Voxel indices to mm.
        names: Labels and their colours.
    """
    title = (
        "Mean map of each component over the MNI brain, cut at the height of its peak (z in mm); in colour what is "
        "above half of the peak; left is left"
    )
    figure.text(LEFT, share * 0.985, title, va="top", fontsize=9)
    top, width, height = share * 0.95, (1 - 2 * LEFT) / COLUMNS, share * 0.94 / row_count(len(maps))
    for index, (values, (name, colour)) in enumerate(zip(maps, names, strict=True)):
        row, column = divmod(index, COLUMNS)
        x, y = LEFT + column * width, top - (row + 1) * height
        axes = figure.add_axes((x + MARGIN, y, width - 2 * MARGIN, height * 0.84))
        peak_mm = _draw_map(figure, axes, values, mask, affine)
        label = f"{name}, z = {peak_mm:.0f}"
        figure.text(x + width / 2, y + height * 0.91, label, ha="center", va="center", color=colour, fontsize=7.5)


def _draw_map(figure: Figure, axes: Any, values: npt.NDArray, mask: npt.NDArray, affine: npt.NDArray) -> float:
    """One map; the height of its peak in mm."""
    from nilearn.plotting import plot_stat_map

    volume = np.zeros(mask.shape, dtype=np.float32)
    volume[mask] = values
    peak = np.unravel_index(int(volume.argmax()), volume.shape)
    height_mm, largest = float((affine @ [*peak, 1])[2]), float(values.max())
    axes.set_axis_off()
    with warnings.catch_warnings():
        # nilearn and what it draws with warn of their own settings here, which nobody can act on
        warnings.simplefilter("ignore")
        plot_stat_map(
            Nifti1Image(volume, affine),
            figure=figure,
            axes=axes,
            display_mode="z",
            cut_coords=[height_mm],
            threshold=largest / 2,
            vmin=0,
            vmax=largest,
            cmap="hot",
            colorbar=False,
            annotate=False,
        )
    return height_mm
