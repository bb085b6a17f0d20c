"""A file in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

MOST_VALUES = 2_000_000
"""So many values are in memory at a time: 16 megabytes."""


def epoch_blocks(values: xr.Dataset | xr.DataArray, most_values: int = MOST_VALUES) -> Iterator[slice]:
    """Divide epochs into stretches that fit into memory.

    Args:
        values: Statistics of a layer.
        most_values: About so many values of the largest statistic in one stretch, which has one epoch at least.

    Yields:
        Stretches of epochs, in order; none where nothing is recorded.
    """
    sizes = [values.sizes] if not hasattr(values, "data_vars") else [one.sizes for one in values.data_vars.values()]
    per_epoch = max(
        (prod(n for name, n in size.items() if name != "epoch") for size in sizes if "epoch" in size), default=1
    )
    step = max(1, most_values // max(per_epoch, 1))
    for start in range(0, values.sizes.get("epoch", 0), step):
        yield slice(start, start + step)
