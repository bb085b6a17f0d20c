"""A run's spectra as NetCDF 4, copied in pieces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from autospec.errors import require_extra
from autospec.store.atomic import write_atomically
from autospec.store.blocks import epoch_blocks
from autospec.store.read import Spectra
from autospec.store.schema import EPOCH

if TYPE_CHECKING:
    import h5netcdf
    import xarray as xr

NOT_COPIED = ("structure_digest", "text_checksums")
"""Attributes that are of the bytes of the original."""


def write_netcdf(spectra: Spectra, path: Path) -> None:
    """Write the groups, the training curves and every layer's statistics.

    The root holds what the groups are, ``training`` a value per epoch, ``records`` the groups' loss weights and
    ``layers/<layer>`` the statistics of a layer, named as in ``Spectra[layer]``. Permutations are not copied.

    Args:
        spectra: The spectra of a run.
        path: The file.

    Raises:
        MissingExtra: h5netcdf is not installed.
        AutoSpecError: The file cannot be written.
    """
    require_extra("Spectra.to_netcdf", "export", "h5netcdf")
    import h5netcdf
    import xarray as xr

    groups = spectra.groups.set_index("group").to_xarray()
    with write_atomically(path) as temporary, h5netcdf.File(temporary, "w") as file:
        file.attrs.update(_plain({k: v for k, v in spectra.attributes.items() if k not in NOT_COPIED}))
        _write(file, groups.assign(margin=groups["margin"].astype(np.int8)))
        _write(file.create_group("training"), spectra.training.to_xarray())
        _write(file.create_group("records"), xr.Dataset({"weight": spectra.weight}))
        layers = file.create_group("layers")
        for layer in spectra.layers:
            # a layer may be larger than memory
            values = spectra.lazy(layer)
            folder = layers.create_group(layer)
            folder.attrs.update(_plain(values.attrs))
            _write(folder, values)


def _write(folder: h5netcdf.Group, values: xr.Dataset) -> None:
    folder.dimensions = {str(name): size for name, size in values.sizes.items()}
    for name, array in {**values.coords, **values.data_vars}.items():
        dimensions = tuple(map(str, array.dims))
        text = array.dtype.kind in "OUT"
        dtype = h5py.string_dtype() if text else array.dtype
        variable = folder.create_variable(str(name), dimensions, dtype)
        if array.dims[:1] == (EPOCH,):
            for block in epoch_blocks(array):
                variable[block] = array.isel(epoch=block).to_numpy()
        else:
            variable[...] = array.to_numpy().astype(object) if text else array.to_numpy()


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as NetCDF can hold them: it has no truth values, and no text of a fixed length."""
    plain: dict[str, Any] = {}
    for name, value in attributes.items():
        array = np.asarray(value)
        if array.dtype.kind == "b":
            plain[name] = array.astype(np.int8)[()]
        else:
            plain[name] = str(value) if array.ndim == 0 and array.dtype.kind in "SUOT" else value
    return plain
