"""The tidy table of a layer: a row for each epoch, group and singular value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autospec.store.layer_arrays import rank_bound_of, scale_of, spectra_of
from autospec.store.schema import EPOCH, GROUP, INDEX

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

FRAME_COLUMNS = ("layer", "epoch", "group", "index", "value", "scaled", "floor", "scaled_floor", "rank_bound")


def frame_needs(statistic: str) -> tuple[str, ...]:
    """Return the names of what ``layer_table`` makes its columns of."""
    return (statistic, f"floor_{statistic}", "rows", "own_rows", "rank_bound")


def layer_table(values: xr.Dataset, weight: xr.DataArray, statistic: str, leading: int | None) -> pd.DataFrame:
    """Return the columns of ``FRAME_COLUMNS``, but the layer's name, of some or all epochs of a layer."""
    spectra = spectra_of(values, statistic)
    width = spectra.sizes["index"]
    table = spectra.isel(index=slice(leading)).to_dataset(name="value")
    scale = scale_of(values, weight, statistic)
    table["scaled"] = table["value"] * scale
    table["floor"] = values[f"floor_{statistic}"]
    table["scaled_floor"] = table["floor"] * scale
    table["rank_bound"] = rank_bound_of(values, statistic, width)
    return table.to_dataframe(dim_order=[EPOCH, GROUP, INDEX]).reset_index()
