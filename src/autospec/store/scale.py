"""The scale on which groups of unequal size are compared, and the tidy table of a layer on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autospec.store.schema import ACTIVATION, EPOCH, GRADIENT, GROUP, INDEX

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

FRAME_COLUMNS = ("layer", "epoch", "group", "index", "value", "scaled", "floor", "scaled_floor", "rank_bound")


def spectra_of(values: xr.Dataset, statistic: str) -> xr.DataArray:
    """Return a statistic's (epoch, group, index) singular values, with the index dimension called index."""
    index = f"{statistic}_{INDEX}"
    return values[statistic].rename({index: INDEX}) if index in values[statistic].dims else values[statistic]


def scale_of(values: xr.Dataset, weight: xr.DataArray, statistic: str) -> xr.DataArray:
    """Return the factor by which raw singular values become those that groups of unequal size are compared on.

    Args:
        values: A layer's statistics.
        weight: (epoch, group) the groups' loss weights ``w_c``.
        statistic: gradient, activation or adjoint.

    Returns:
        (epoch, group) ``1 / w_c`` for the gradient, ``1 / √rows_c`` for activations, ``√rows_c / w_c`` for adjoints;
        NaN where a group had no sample.
    """
    # a run may have gone on writing since the layer was read
    weight = weight.reindex(epoch=values[EPOCH])
    weight = weight.where(weight > 0)
    if statistic == GRADIENT:
        return 1 / weight
    counted: xr.DataArray = values["own_rows"] if "own_rows" in values else values["rows"]
    rows = counted.where(counted > 0) ** 0.5
    return 1 / rows if statistic == ACTIVATION else rows / weight


def rank_bound_of(values: xr.Dataset, statistic: str, most: int) -> xr.DataArray:
    """Return the (epoch, group) index beyond which singular values are zero or rounding.

    Args:
        values: A layer's statistics.
        statistic: gradient, activation or adjoint.
        most: The width of the spectrum.

    Returns:
        The recorded bound where there is one, else the group's rows or ``most``, whichever is smaller.
    """
    import xarray as xr

    if statistic == GRADIENT and "rank_bound" in values:
        return values["rank_bound"]
    if "rows" in values:
        return xr.where(values["rows"] < most, values["rows"], most)
    # an engine without factors does not see rows
    return xr.full_like(values["floor_gradient"], most)


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
