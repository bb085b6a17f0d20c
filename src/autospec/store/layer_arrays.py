"""One layer of an opened spectra file as labelled arrays, and the scale on which its groups are compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import h5py
import numpy as np
import numpy.typing as npt

from autospec.store.checksums import axis_names
from autospec.store.schema import (
    ACTIVATION,
    ADJOINT,
    EPOCH,
    GRADIENT,
    GROUP,
    GROUP_WEIGHT,
    INDEX,
    OTHER_GROUP,
    RECORDED_EPOCHS,
    SIDE,
    SIDES,
    layer_path,
)

if TYPE_CHECKING:
    import xarray as xr


def read_weight(file: h5py.File, group_names: Sequence[str]) -> xr.DataArray:
    """Read the summed loss weight ``w_c`` of each group.

    Args:
        file: A spectra file, opened for reading.
        group_names: Its groups.

    Returns:
        (epoch, group) weights; a group gradient divided by its own is the group's mean gradient.
    """
    import xarray as xr

    if GROUP_WEIGHT.path not in file:  # nothing is recorded yet
        nothing = np.empty((0, len(group_names)))
        return xr.DataArray(nothing, {EPOCH: np.empty(0, dtype=np.int64), GROUP: list(group_names)}, (EPOCH, GROUP))
    return _labelled(file, file[GROUP_WEIGHT.path], group_names, None)


def read_layer(
    file: h5py.File,
    layer: str,
    group_names: Sequence[str],
    most_epochs: int | None = None,
    names: Collection[str] | None = None,
) -> xr.Dataset:
    """Read the statistics of one layer.

    Args:
        file: A spectra file, opened for reading.
        layer: The layer's name.
        group_names: The file's groups.
        most_epochs: Where more epochs were recorded, about so many evenly spaced ones are read, the last among them.
        names: The statistics to read; None reads all. A statistic in a folder is named with an underscore
            (``floor_gradient``).

    Returns:
        The statistics by name. Activation and adjoint spectra have an index of their own (``activation_index``), since
        they are as wide as their rows and one index for all would pad the others.
    """
    from autospec.store.layer_spectra import LayerSpectra

    folder = file[layer_path(layer)]
    arrays: dict[str, xr.DataArray] = {}

    def visit(path: str, item: h5py.Dataset | h5py.Group) -> None:
        name = path.replace("/", "_")
        wanted = names is None or name in names
        if isinstance(item, h5py.Dataset) and wanted and not path.startswith("uses/"):
            arrays[name] = _labelled(file, item, group_names, most_epochs)

    folder.visititems(visit)
    for name in (ACTIVATION, ADJOINT):
        if name in arrays:
            arrays[name] = arrays[name].rename({INDEX: f"{name}_{INDEX}"})
    return LayerSpectra(arrays, attrs=dict(folder.attrs))


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


def _labelled(
    file: h5py.File, dataset: h5py.Dataset, group_names: Sequence[str], most_epochs: int | None
) -> xr.DataArray:
    import xarray as xr

    dimensions = axis_names(dataset)
    labels = {
        GROUP: list(group_names),
        OTHER_GROUP: list(group_names),
        SIDE: list(SIDES),
    }
    coordinates: dict[str, object] = {name: labels[name] for name in dimensions if name in labels}
    if INDEX in dimensions:
        coordinates[INDEX] = np.arange(1, dataset.shape[dimensions.index(INDEX)] + 1)
    if dimensions[:1] != [EPOCH]:
        return xr.DataArray(dataset[()], dims=dimensions, coords=coordinates)
    coordinates[EPOCH] = _every_nth(file[RECORDED_EPOCHS.path], most_epochs)
    return xr.DataArray(_every_nth(dataset, most_epochs), dims=dimensions, coords=coordinates)


def _every_nth(dataset: h5py.Dataset, most: int | None) -> npt.NDArray:
    """At most about so many evenly spaced entries along the first axis, the first and the last among them."""
    step = 1 if most is None else max(1, -(-len(dataset) // most))
    taken = dataset[::step]
    return taken if (len(dataset) - 1) % step == 0 else np.concatenate([taken, dataset[-1:]])
