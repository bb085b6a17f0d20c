"""A layer's arrays that are read when they are used: for files that do not fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from autospec.errors import AutoSpecError
from autospec.store.checksums import axis_names
from autospec.store.layer_arrays import labelled, statistics_of, with_own_indices
from autospec.store.layer_spectra import LayerSpectra
from autospec.store.opening import open_checked
from autospec.store.schema import EPOCH, RECORDED_EPOCHS, layer_path


def lazy_layer(path: Path, layer: str, group_names: Sequence[str]) -> xr.Dataset:
    """Return the statistics of one layer, none of which is read yet.

    Args:
        path: A spectra file.
        layer: The layer's name.
        group_names: The file's groups.

    Returns:
        As ``read_layer`` returns them.
    """
    state = _state(path)
    with open_checked(path) as file:
        folder = file[layer_path(layer)]
        epochs = file[RECORDED_EPOCHS.path][()] if RECORDED_EPOCHS.path in file else None
        arrays = {
            name: labelled(
                item,
                indexing.LazilyIndexedArray(StoredArray(path, item.name, item.shape, item.dtype, state)),
                group_names,
                epochs if axis_names(item)[:1] == [EPOCH] else None,
            )
            for name, item in statistics_of(folder).items()
        }
        return LayerSpectra(with_own_indices(arrays), attrs=dict(folder.attrs))


State = tuple[int, int, int, int]


def _state(path: Path) -> State:
    """What changes whenever a file is written anew."""
    try:
        status = path.stat()
    except OSError as error:
        raise AutoSpecError(f"{path}: {error.strerror}") from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@dataclass
class StoredArray(BackendArray):
    """A dataset of a file that is opened for each reading.

    Attributes:
        path: The file.
        name: The dataset's path in it.
        shape: Its shape.
        dtype: Its dtype.
        state: The file's state when the array was made: values of another state are not mixed with it.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    state: State

    def __getitem__(self, key: Any) -> npt.NDArray:
        """Return the values at xarray's own kind of index."""
        basic = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, basic, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> npt.NDArray:
        # a file that was written anew may have more epochs than xarray has labels for
        if _state(self.path) != self.state:
            raise AutoSpecError(f"{self.path} was written anew since it was opened; open it again")
        with open_checked(self.path) as file:
            return np.asarray(file[self.name][key])
