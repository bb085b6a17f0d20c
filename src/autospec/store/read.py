"""Reading ``spectra.h5``: labelled arrays and a tidy table."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError
from autospec.store.checksums import axis_names
from autospec.store.description import describe
from autospec.store.layer_arrays import rank_bound_of, read_layer, read_weight, scale_of, spectra_of
from autospec.store.opening import open_checked
from autospec.store.permutations import PermutationRatios, permutations_in
from autospec.store.schema import (
    EPOCH,
    GRADIENT,
    GROUP,
    GROUP_IS_MARGIN,
    GROUP_MEMBERS,
    GROUP_NAMES,
    GROUP_SIZES,
    INDEX,
    LAYERS,
    RECORDED_EPOCHS,
    SPECTRUM_NAMES,
    TRAINING_CURVES,
    TRAINING_EPOCHS,
    Field,
    layer_of_folder,
    layer_path,
)
from autospec.store.table import SpectraTable

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure


FRAME_COLUMNS = ("layer", "epoch", "group", "index", "value", "scaled", "floor", "scaled_floor", "rank_bound")


class Spectra:
    """The spectra of one run, read on demand.

    ``spectra["encoder.0"]`` is an ``xarray.Dataset`` of one layer with labelled axes; ``to_frame`` a tidy table over
    layers. Singular value indices count from 1, as in σ₁; those of activations and adjoints are axes of their own. The
    file is opened for each reading only, so a run may go on writing beside it; ``load_spectra`` reads all at once.

    Attributes:
        path: The file, or its bytes.
        attributes: What the file says of its run, by name.
        group_names: Its groups; the first is ``all``, the whole batch.
        sizes: The subjects or samples in each group; NaN where the writer did not know.
        members: Of each group the disjoint groups that it is made of: itself, or the parts of a margin.
        layers: Its layers, in the model's order.
        shapes: Of each layer the shape (outputs, inputs) of its weight's matrix, as it is stored.
    """

    def __init__(self, path: str | Path | bytes, file: h5py.File | None = None) -> None:
        """Read the header of a file.

        Args:
            path: The file, or its bytes.
            file: The same, where it is open already.

        Raises:
            AutoSpecError: The file is missing, not HDF5, cut off, or of another schema.
        """
        self.path = path if isinstance(path, bytes) else Path(path)
        self._loaded_layers: dict[str, xr.Dataset] = {}
        self._loaded_weight: xr.DataArray | None = None
        with open_checked(self.path) if file is None else contextlib.nullcontext(file) as header:
            self.attributes: dict[str, Any] = dict(header.attrs)
            self.layers: list[str] = [layer_of_folder(folder) for folder in header.get(LAYERS, ())]
            self.shapes = {
                name: tuple(map(int, header[layer_path(name)].attrs.get("shape", ()))) for name in self.layers
            }
            self.group_names: list[str] = [name.decode() for name in header[GROUP_NAMES][()]]
            names = np.array(self.group_names)
            parts = header[GROUP_MEMBERS][()] if GROUP_MEMBERS in header else np.eye(len(names), dtype=bool)
            self.members: dict[str, frozenset[str]] = {
                name: frozenset(names[row].tolist()) for name, row in zip(self.group_names, parts, strict=True)
            }
            size = header[GROUP_SIZES][()] if GROUP_SIZES in header else np.full(len(names), np.nan)
            self.sizes: dict[str, float] = dict(zip(self.group_names, size.tolist(), strict=True))
            self._is_margin = header[GROUP_IS_MARGIN][()]

    def __repr__(self) -> str:
        return describe(self)

    @property
    def where(self) -> str:
        """The file's path, or that it is in memory."""
        return "in memory" if isinstance(self.path, bytes) else str(self.path)

    @property
    def run_id(self) -> str:
        """The run's id; empty where the recorder was not given one."""
        return str(self.attributes.get("run_id", ""))

    @property
    def complete(self) -> bool:
        """Whether the run was recorded to its end."""
        return bool(self.attributes.get("complete", False))

    @property
    def simulated(self) -> bool:
        """Whether the run's data are simulated."""
        return bool(self.attributes.get("simulated", False))

    @cached_property
    def groups(self) -> pd.DataFrame:
        """One row per group: its name, its size (where the writer knew it) and whether it is a margin."""
        import pandas as pd

        return pd.DataFrame({"group": self.group_names, "size": list(self.sizes.values()), "margin": self._is_margin})

    @cached_property
    def training(self) -> pd.DataFrame:
        """One row per epoch, by its number or step: training and validation loss and metric, as far as given."""
        with open_checked(self.path) as file:
            return _read_training(file)

    @cached_property
    def permutations(self) -> PermutationRatios | None:
        """The ratios of two groups under every permutation of their subjects; None without permutations."""
        with open_checked(self.path) as file:
            return permutations_in(file, self.layers)

    @property
    def epochs(self) -> npt.NDArray[np.int64]:
        """(epoch,) the epochs at which spectra were recorded."""
        if self._loaded_weight is not None:
            return self._loaded_weight["epoch"].to_numpy()
        with open_checked(self.path) as file:
            return file[RECORDED_EPOCHS.path][()] if RECORDED_EPOCHS.path in file else np.empty(0, dtype=np.int64)

    @property
    def weight(self) -> xr.DataArray:
        """(epoch, group) the summed loss weight ``w_c`` of each group, by which a group gradient is scaled."""
        if self._loaded_weight is not None:
            return self._loaded_weight
        with open_checked(self.path) as file:
            return read_weight(file, self.group_names)

    def __getitem__(self, layer: str) -> xr.Dataset:
        """Read every statistic of one layer.

        Args:
            layer: One of ``layers``.

        Returns:
            The statistics; the name of one in a folder has an underscore (``floor_gradient``).

        Raises:
            AutoSpecError: There is no such layer.
        """
        self._check_layer(layer)
        if layer in self._loaded_layers:
            return self._loaded_layers[layer]
        with open_checked(self.path) as file:
            return read_layer(file, layer, self.group_names)

    def scaled(self, layer: str, statistic: str = GRADIENT) -> xr.DataArray:
        """Return a layer's spectra on the scale on which groups of unequal size are compared.

        The gradient is divided by ``w_c`` (the group's mean gradient), the activations by ``√rows_c``, the adjoints
        multiplied by ``√rows_c / w_c``.

        Args:
            layer: One of ``layers``.
            statistic: gradient, activation or adjoint.

        Returns:
            (epoch, group, index) scaled singular values; NaN where a group had no sample.

        Raises:
            AutoSpecError: There is no such layer, or the statistic has no scale or was not recorded.
        """
        values = self._layer_with(layer, statistic)
        return spectra_of(values, statistic) * scale_of(values, self.weight, statistic)

    def to_frame(self, statistic: str = GRADIENT, leading: int | None = None) -> pd.DataFrame:
        """Return a tidy table, one row per singular value.

        Args:
            statistic: gradient, activation or adjoint.
            leading: So many of the largest singular values; None takes all.

        Returns:
            Columns layer, epoch, group, index; value (raw) and scaled (see ``scaled``); floor and scaled_floor, below
            which a value is rounding; rank_bound, beyond whose index no value stands above the noise floor.

        Raises:
            AutoSpecError: The statistic has no scale or was not recorded.
        """
        import pandas as pd

        weight = self.weight
        parts = [
            layer_table(self._layer_with(layer, statistic), weight, statistic, leading).assign(layer=layer)
            for layer in self.layers
        ]
        return pd.concat(parts, ignore_index=True)[list(FRAME_COLUMNS)]

    def lazy(self, layer: str) -> xr.Dataset:
        """Return a layer's statistics whose values are read when they are used, and only as far as they are.

        For a layer that does not fit into memory: ``spectra.lazy("encoder.0").gradient.isel(index=0)``.

        Args:
            layer: One of ``layers``.

        Returns:
            As ``spectra[layer]``. Reading raises an AutoSpecError where the file was written anew in between.

        Raises:
            AutoSpecError: There is no such layer.
        """
        from autospec.store.lazy import lazy_layer

        self._check_layer(layer)
        if layer in self._loaded_layers or isinstance(self.path, bytes):
            return self[layer]
        return lazy_layer(self.path, layer, self.group_names)

    def to_netcdf(self, path: str | Path) -> None:
        """Write every layer's statistics as NetCDF 4, which other languages and ``xarray.open_datatree`` read.

        The file is copied in pieces, so that its size does not matter.

        Args:
            path: The file, such as ``spectra.nc``; one that is there is replaced.

        Raises:
            AutoSpecError: The file cannot be written, or h5netcdf is not installed.
        """
        import_module("autospec.store.netcdf").write_netcdf(self, Path(path))

    def to_parquet(self, path: str | Path, statistic: str = GRADIENT, leading: int | None = None) -> None:
        """Write the table of ``to_frame`` as Parquet, piece by piece, so that its size does not matter.

        Args:
            path: The file, such as ``spectra.parquet``; one that is there is replaced.
            statistic: gradient, activation or adjoint.
            leading: So many of the largest singular values; None takes all.

        Raises:
            AutoSpecError: The statistic has no scale or was not recorded, the file cannot be written, or pyarrow is
                not installed.
        """
        import_module("autospec.store.parquet").write_parquet(self, Path(path), statistic, leading)

    # What follows is made by rooms above this one, which import it: they are named, and loaded when they are used, so
    # that reading stands below drawing and needs neither matplotlib nor scipy.

    def plot(
        self,
        layers: str | Sequence[str] | None = None,
        groups: str | Sequence[str] | None = None,
        path: str | Path | None = None,
    ) -> Figure:
        """Draw the singular values of each layer's mean gradient over training, group by group.

        Args:
            layers: Layers by name or pattern (``encoder.*``); None takes the first twelve.
            groups: The groups in front; None takes the disjoint groups.
            path: A file to save the picture to; its ending says which kind (.png, .pdf, .svg).

        Returns:
            A matplotlib figure; a notebook shows it.

        Raises:
            AutoSpecError: There is no such layer or group, or the picture cannot be saved.
        """
        return import_module("autospec.figures.spectra_pictures").plot(self, layers, groups, path)

    def plot_differences(
        self, a: str, b: str, layers: str | Sequence[str] | None = None, path: str | Path | None = None
    ) -> Figure:
        """Draw where the mean gradients' spectra of two groups differ, with a p where there is a valid test.

        Args:
            a: The first group.
            b: The second group, which shares no sample with the first.
            layers: Layers by name or pattern (``encoder.*``); None takes the first twelve.
            path: A file to save the picture to; its ending says which kind (.png, .pdf, .svg).

        Returns:
            A matplotlib figure; a notebook shows it.

        Raises:
            AutoSpecError: There is no such layer or group, or the picture cannot be saved.
        """
        return import_module("autospec.figures.spectra_pictures").plot_differences(self, a, b, layers, path)

    def summary(self) -> pd.DataFrame:
        """Say what happened in each layer, one row per layer.

        Returns:
            σ₁ and effective rank of the mean gradient at the end of training, the change of that rank, cosine and
            cancellation of the groups, and a verdict in words; ``analysis.layer_summary.COLUMNS`` explains each.

        Raises:
            AutoSpecError: Gradient spectra were not recorded.
        """
        return import_module("autospec.analysis.layer_summary").summarise(self)

    def tests(self, a: str | None = None, b: str | None = None, finer: bool = False) -> pd.DataFrame:
        """Test groups against each other by permuting the labels of subjects, in every layer.

        Args:
            a: The first group of a pair whose rows alone are wanted; None takes every pair.
            b: The second.
            finer: Whether epochs and indices have exploratory rows of their own.

        Returns:
            A row per test; ``analysis.permutation.COLUMNS`` explains the columns, and ``note`` says why a p is missing.

        Raises:
            AutoSpecError: There is no such pair.
        """
        return import_module("autospec.analysis.permutation_table").permutation_table(self, a, b, finer)

    def _layer_with(self, layer: str, statistic: str) -> xr.Dataset:
        """A layer's statistics; AutoSpecError where the spectra of one are not among them."""
        if statistic not in SPECTRUM_NAMES:
            raise AutoSpecError(f"statistic={statistic!r} has no scale; allowed are {', '.join(SPECTRUM_NAMES)}")
        values = self[layer]
        if statistic not in values and not self.weight.sizes["epoch"]:
            raise AutoSpecError(f"{self.where}: no spectra are recorded yet")
        if statistic not in values:
            raise AutoSpecError(f"{self.where}: {statistic} spectra of layer {layer!r} were not recorded")
        return values

    def _check_layer(self, layer: str) -> None:
        if layer not in self.layers:
            raise AutoSpecError(f"{self.where} has no layer {layer!r}; it has {', '.join(self.layers)}")

    def _load(
        self, file: h5py.File, layers: Sequence[str] | None, most_epochs: int | None, names: Collection[str] | None
    ) -> None:
        """Keep some layers and epochs in memory, and know nothing of the others from now on."""
        for layer in layers or ():
            self._check_layer(layer)
        self.layers = [layer for layer in self.layers if layers is None or layer in layers]
        self._loaded_weight = read_weight(file, self.group_names)
        self._loaded_layers = {
            layer: read_layer(file, layer, self.group_names, most_epochs, names) for layer in self.layers
        }
        # cached properties, as if they had been asked for
        self.training = _read_training(file)
        if names is None:  # they may be larger than all else, and some statistics alone do not need them
            self.permutations = permutations_in(file, self.layers)


def _read_training(file: h5py.File) -> pd.DataFrame:
    import pandas as pd

    curves = {field.path.replace("/", "_"): file[field.path][()] for field in TRAINING_CURVES if field.path in file}
    epochs = file[TRAINING_EPOCHS.path][()] if TRAINING_EPOCHS.path in file else np.empty(0, dtype=np.int64)
    return pd.DataFrame(curves, index=pd.Index(epochs, name="epoch"))


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


def open_spectra(path: str | Path) -> Spectra:
    """Open a ``spectra.h5``; its layers are read when they are asked for.

    Args:
        path: The file.

    Returns:
        The spectra of the run.

    Raises:
        AutoSpecError: The file is missing, not HDF5, cut off, or of another schema.
    """
    return Spectra(path)


def load_spectra(
    path: str | Path | bytes,
    layers: Sequence[str] | None = None,
    most_epochs: int | None = None,
    names: Collection[str] | None = None,
) -> Spectra:
    """Read a ``spectra.h5`` into memory, through one opening of the file.

    Args:
        path: The file, or its bytes.
        layers: The layers to read; None reads all.
        most_epochs: Where more epochs were recorded, about so many evenly spaced ones are read, the last among them.
        names: The statistics to read; None reads all (see ``read_layer``).

    Returns:
        The spectra, of these layers and epochs alone.

    Raises:
        AutoSpecError: There is no such file or layer, or the file cannot be read.
    """
    with open_checked(path if isinstance(path, bytes) else Path(path)) as file:
        spectra = Spectra(path, file)
        spectra._load(file, layers, most_epochs, names)
    return spectra


def read_table(path: Path) -> SpectraTable:
    """Read the per-epoch arrays of a file, to go on appending to them.

    Args:
        path: The file.

    Returns:
        The arrays of every recorded epoch, of every epoch and of every permuted one.

    Raises:
        AutoSpecError: The file is missing or cannot be read.
    """
    table = SpectraTable()

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            field = Field(name, tuple(axis_names(item)), item.dtype.name)
            if field.per_record or field.per_epoch or field.per_permutation:
                table.restore(field, item[()])

    with open_checked(path) as file:
        file.visititems(visit)
    return table
