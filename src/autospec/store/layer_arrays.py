"""The layers of an opened spectra file as labelled arrays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from autospec.store.checksums import axis_names
from autospec.store.schema import (
    ACTIVATION,
    ADJOINT,
    EPOCH,
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


def read_layers(
    file: h5py.File,
    layers: Sequence[str],
    group_names: Sequence[str],
    most_epochs: int | None = None,
    names: Collection[str] | None = None,
) -> dict[str, xr.Dataset]:
    """Read the statistics of some layers, each as ``read_layer`` does."""
    return {layer: read_layer(file, layer, group_names, most_epochs, names) for layer in layers}


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
    arrays = {
        name: _labelled(file, item, group_names, most_epochs)
        for name, item in statistics_of(folder).items()
        if names is None or name in names
    }
    return LayerSpectra(with_own_indices(arrays), attrs=dict(folder.attrs))


def statistics_of(folder: h5py.Group) -> dict[str, h5py.Dataset]:
    """List the datasets of a layer but those of single uses of its weight; a folder's name goes first: ``floor_…``."""
    statistics: dict[str, h5py.Dataset] = {}

    def visit(path: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and not path.startswith("uses/"):
            statistics[path.replace("/", "_")] = item

    folder.visititems(visit)
    return statistics


def with_own_indices(arrays: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """Give activation and adjoint spectra, among the statistics of a layer, an index of their own."""
    own = [name for name in (ACTIVATION, ADJOINT) if name in arrays]
    return arrays | {name: arrays[name].rename({INDEX: f"{name}_{INDEX}"}) for name in own}


def _labelled(
    file: h5py.File, dataset: h5py.Dataset, group_names: Sequence[str], most_epochs: int | None
) -> xr.DataArray:
    if axis_names(dataset)[:1] != [EPOCH]:
        return labelled(dataset, dataset[()], group_names)
    epochs = _every_nth(file[RECORDED_EPOCHS.path], most_epochs)
    return labelled(dataset, _every_nth(dataset, most_epochs), group_names, epochs)


def labelled(
    dataset: h5py.Dataset, values: Any, group_names: Sequence[str], epochs: npt.NDArray | None = None
) -> xr.DataArray:
    """Give values the axes of the dataset that they are of, with coordinates.

    Args:
        dataset: A dataset below a layer, or the groups' weights.
        values: Its values, or those of some epochs; whatever ``xarray.Variable`` takes.
        group_names: The file's groups.
        epochs: The epochs, where the first axis is of them.

    Returns:
        The values by epoch, group and index, as far as the dataset has these axes; indices count from 1.
    """
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
    if epochs is not None:
        coordinates[EPOCH] = epochs
    return xr.DataArray(xr.Variable(dimensions, values), coords=coordinates)


def _every_nth(dataset: h5py.Dataset, most: int | None) -> npt.NDArray:
    """At most about so many evenly spaced entries along the first axis, the first and the last among them."""
    step = 1 if most is None else max(1, -(-len(dataset) // most))
    taken = dataset[::step]
    return taken if (len(dataset) - 1) % step == 0 else np.concatenate([taken, dataset[-1:]])
