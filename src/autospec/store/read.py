"""Reading ``spectra.h5``: labelled arrays and a tidy table."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from autospec.errors import AutoSpecError, DamagedFile
from autospec.store.schema import (
    ACTIVATION,
    ADJOINT,
    GRADIENT,
    GROUP,
    GROUP_IS_MARGIN,
    GROUP_MEMBERS,
    GROUP_NAMES,
    GROUP_SIZES,
    GROUP_WEIGHT,
    INDEX,
    LAYERS,
    OTHER_GROUP,
    RECORDED_EPOCHS,
    SCHEMA_VERSION,
    SIDE,
    SIDES,
    SPECTRUM_NAMES,
    TRAINING_CURVES,
    TRAINING_EPOCHS,
    Field,
)
from autospec.store.table import SpectraTable

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


FRAME_COLUMNS = ("layer", "epoch", "group", "index", "value", "scaled", "floor", "scaled_floor", "rank_bound")


class Spectra:
    """The spectra of one run, read on demand.

    ``spectra["encoder.0"]`` is an ``xarray.Dataset`` of one layer with labelled axes; ``to_frame`` a tidy table over
    layers. Singular value indices count from 1, as in σ₁; those of activations and adjoints are axes of their own. The
    file is opened for each reading only, so a run may go on writing beside it. Instead of a path it takes bytes.
    """

    def __init__(self, path: str | Path | bytes) -> None:
        self.path = path if isinstance(path, bytes) else Path(path)
        with opened(self.path) as file:
            self.attributes: dict[str, Any] = dict(file.attrs)
            self.group_names: list[str] = [name.decode() for name in file[GROUP_NAMES][()]]
            self.layers: list[str] = list(file.get(LAYERS, ()))

    def __repr__(self) -> str:
        return f"Spectra({self._where}: {len(self.layers)} layers, groups {', '.join(self.group_names)})"

    @property
    def _where(self) -> str:
        return "in memory" if isinstance(self.path, bytes) else str(self.path)

    @property
    def run_id(self) -> str:
        return str(self.attributes.get("run_id", ""))

    @property
    def complete(self) -> bool:
        return bool(self.attributes.get("complete", False))

    @property
    def simulated(self) -> bool:
        return bool(self.attributes.get("simulated", False))

    @cached_property
    def groups(self) -> pd.DataFrame:
        """One row per group: its name, its size (where the writer knew it) and whether it is a margin."""
        import pandas as pd

        with opened(self.path) as file:
            size = file[GROUP_SIZES][()] if GROUP_SIZES in file else np.full(len(self.group_names), np.nan)
            return pd.DataFrame({"group": self.group_names, "size": size, "margin": file[GROUP_IS_MARGIN][()]})

    @cached_property
    def training(self) -> pd.DataFrame:
        """One row per epoch, by its number or step: training and validation loss and metric, as far as given."""
        import pandas as pd

        with opened(self.path) as file:
            curves = {
                field.path.replace("/", "_"): file[field.path][()] for field in TRAINING_CURVES if field.path in file
            }
            epochs = file[TRAINING_EPOCHS.path][()] if TRAINING_EPOCHS.path in file else np.empty(0, dtype=np.int64)
        return pd.DataFrame(curves, index=pd.Index(epochs, name="epoch"))

    @property
    def weight(self) -> xr.DataArray:
        """(epoch, group): the summed loss weight ``w_c`` of each group, by which a group gradient is scaled."""
        with opened(self.path) as file:
            return self._labelled(file, file[GROUP_WEIGHT.path])

    @cached_property
    def members(self) -> dict[str, frozenset[str]]:
        """The disjoint groups that each group is made of: itself, or the parts of a margin."""
        with opened(self.path) as file:
            parts = file[GROUP_MEMBERS][()] if GROUP_MEMBERS in file else np.eye(len(self.group_names), dtype=bool)
        names = np.array(self.group_names)
        return {name: frozenset(names[row].tolist()) for name, row in zip(self.group_names, parts, strict=True)}

    def __getitem__(self, layer: str) -> xr.Dataset:
        """Every statistic of one layer; the name of one in a folder has an underscore (``floor_gradient``)."""
        import xarray as xr

        if layer not in self.layers:
            raise AutoSpecError(f"{self._where} has no layer {layer!r}; it has {', '.join(self.layers)}")
        with opened(self.path) as file:
            found: dict[str, xr.DataArray] = {}

            def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
                if isinstance(item, h5py.Dataset) and not name.startswith("uses/"):
                    found[name.replace("/", "_")] = self._labelled(file, item)

            file[f"{LAYERS}/{layer}"].visititems(visit)
            for name in (ACTIVATION, ADJOINT):  # as wide as their rows; one index for all would pad the others
                if name in found:
                    found[name] = found[name].rename({INDEX: f"{name}_{INDEX}"})
            return xr.Dataset(found, attrs=dict(file[f"{LAYERS}/{layer}"].attrs))

    def scaled(self, layer: str, statistic: str = "gradient") -> xr.DataArray:
        """A layer's spectra on the scale on which groups of unequal size are compared.

        The gradient is divided by ``w_c`` (the group's mean gradient), the activations by ``√rows_c``, the adjoints
        multiplied by ``√rows_c / w_c``.
        """
        values = self[layer]
        return _spectra_of(values, statistic) * self._scale(values, statistic)

    def _scale(self, values: xr.Dataset, statistic: str) -> xr.DataArray:
        if statistic not in SPECTRUM_NAMES:
            raise AutoSpecError(f"statistic={statistic!r} has no scale; allowed are {', '.join(SPECTRUM_NAMES)}")
        # a run may have gone on writing since the layer was read
        weight = self.weight.reindex(epoch=values["epoch"])
        weight = weight.where(weight > 0)
        if statistic == GRADIENT:
            return 1 / weight
        counted: xr.DataArray = values["own_rows"] if "own_rows" in values else values["rows"]
        rows = counted.where(counted > 0) ** 0.5
        return 1 / rows if statistic == ACTIVATION else rows / weight

    def to_frame(self, statistic: str = "gradient") -> pd.DataFrame:
        """A tidy table, one row per singular value.

        Columns: layer, epoch, group, index; value (raw) and scaled (see ``scaled``); floor and scaled_floor, below
        which a value is rounding; rank_bound, beyond whose index no value stands above the noise floor.
        """
        import pandas as pd

        parts = []
        for layer in self.layers:
            values = self[layer]
            if statistic not in values:
                raise AutoSpecError(f"{self._where}: {statistic} spectra of layer {layer!r} were not recorded")
            table = _spectra_of(values, statistic).to_dataset(name="value")
            table["scaled"] = self.scaled(layer, statistic)
            table["floor"] = values[f"floor_{statistic}"]
            table["scaled_floor"] = table["floor"] * self._scale(values, statistic)
            table["rank_bound"] = _rank_bound(values, statistic, table.sizes["index"])
            parts.append(table.to_dataframe().reset_index().assign(layer=layer))
        return pd.concat(parts, ignore_index=True)[list(FRAME_COLUMNS)]

    def _labelled(self, file: h5py.File, dataset: h5py.Dataset) -> xr.DataArray:
        import xarray as xr

        dimensions = [dimension.label for dimension in dataset.dims]
        known = {
            RECORDED_EPOCHS.path: file[RECORDED_EPOCHS.path][()],
            GROUP: self.group_names,
            OTHER_GROUP: self.group_names,
            SIDE: list(SIDES),
        }
        coordinates = {name: known[name] for name in dimensions if name in known}
        if INDEX in dimensions:
            coordinates[INDEX] = np.arange(1, dataset.shape[dimensions.index(INDEX)] + 1)
        return xr.DataArray(dataset[()], dims=dimensions, coords=coordinates)


def _spectra_of(values: xr.Dataset, statistic: str) -> xr.DataArray:
    """A statistic's singular values, their index called index."""
    own = f"{statistic}_{INDEX}"
    return values[statistic].rename({own: INDEX}) if own in values[statistic].dims else values[statistic]


def _rank_bound(values: xr.Dataset, statistic: str, most: int) -> xr.DataArray:
    """(epoch, group): the group's rows or the spectrum's width; the sharper bound where it was recorded."""
    import xarray as xr

    if statistic == "gradient" and "rank_bound" in values:
        return values["rank_bound"]
    if "rows" in values:
        return xr.where(values["rows"] < most, values["rows"], most)
    # the aliased engine does not see rows
    return xr.full_like(values["floor_gradient"], most)


def open_spectra(path: str | Path) -> Spectra:
    """Open a ``spectra.h5``; AutoSpecError where it is missing, not HDF5, cut off, or of another schema."""
    return Spectra(path)


def read_table(path: Path) -> SpectraTable:
    """The per-epoch arrays of a file, to go on appending to them."""
    table = SpectraTable()

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            field = Field(name, tuple(dimension.label for dimension in item.dims), item.dtype.name)
            if field.per_record or field.per_epoch or field.per_permutation:
                table.restore(field, item[()])

    with opened(path) as file:
        file.visititems(visit)
    return table


@contextlib.contextmanager
def opened(path: Path | bytes) -> Iterator[h5py.File]:
    """A spectra file opened for reading, its kind and schema checked; AutoSpecError that names it otherwise.

    DamagedFile, which is one, where it cannot be read at all.
    """
    name = "the file" if isinstance(path, bytes) else str(path)
    if isinstance(path, Path) and not path.is_file():
        raise AutoSpecError(f"{name}: no such file")
    if isinstance(path, Path) and not h5py.is_hdf5(path):
        raise DamagedFile(f"{name} is not an HDF5 file")
    try:
        with h5py.File(io.BytesIO(path) if isinstance(path, bytes) else path, "r") as file:
            version = file.attrs.get("schema_version")
            if version is None:
                raise AutoSpecError(f"{name} is an HDF5 file, but not of spectra: it has no schema_version")
            if version != SCHEMA_VERSION:
                raise AutoSpecError(f"{name} has schema_version {version}; this program reads {SCHEMA_VERSION}")
            yield file
    except AutoSpecError:
        raise
    except (OSError, KeyError, RuntimeError) as error:
        raise DamagedFile(f"{name} is truncated or damaged and cannot be read") from error
