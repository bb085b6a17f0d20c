"""Reading ``spectra.h5``: labelled arrays and a tidy table."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError
from autospec.store.description import describe
from autospec.store.header import read_header, read_training
from autospec.store.layer_arrays import read_layer, read_layers, read_weight
from autospec.store.opening import open_checked
from autospec.store.permutations import PermutationRatios, permutations_in
from autospec.store.questions import Questions
from autospec.store.scale import FRAME_COLUMNS, layer_table, scale_of, spectra_of
from autospec.store.schema import GRADIENT, RECORDED_EPOCHS, SPECTRUM_NAMES

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class Spectra(Questions):
    """The spectra of one run, read on demand.

    ``spectra["encoder.0"]`` is an ``xarray.Dataset`` of one layer with labelled axes; ``to_frame`` a tidy table over
    layers. Singular value indices count from 1, as in σ₁; those of activations and adjoints are axes of their own. The
    file is opened for each reading only, so a run may go on writing beside it; ``load_spectra`` reads all at once.

    Attributes:
        path: The file, or its bytes.
        where: The file's path, or that it is in memory.
        attributes: What the file says of its run, by name.
        run_id: The run's id; empty where the recorder was not given one.
        complete: Whether the run was recorded to its end.
        simulated: Whether the run's data are simulated.
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
        with open_checked(self.path) if file is None else contextlib.nullcontext(file) as opened:
            header = read_header(opened)
        self.where = "in memory" if isinstance(self.path, bytes) else str(self.path)
        self.attributes: dict[str, Any] = header.attributes
        self.run_id = str(header.attributes.get("run_id", ""))
        self.complete = bool(header.attributes.get("complete", False))
        self.simulated = bool(header.attributes.get("simulated", False))
        self.group_names: list[str] = header.group_names
        self.sizes: dict[str, float] = header.sizes
        self.members: dict[str, frozenset[str]] = header.members
        self.layers: list[str] = list(header.shapes)
        self.shapes: dict[str, tuple[int, ...]] = header.shapes
        self._is_margin = header.is_margin

    def __repr__(self) -> str:
        return describe(self)

    @cached_property
    def groups(self) -> pd.DataFrame:
        """One row per group: its name, its size (where the writer knew it) and whether it is a margin."""
        import pandas as pd

        return pd.DataFrame({"group": self.group_names, "size": list(self.sizes.values()), "margin": self._is_margin})

    @cached_property
    def training(self) -> pd.DataFrame:
        """One row per epoch, by its number or step: training and validation loss and metric, as far as given."""
        with open_checked(self.path) as file:
            return read_training(file)

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
        self._loaded_layers = read_layers(file, self.layers, self.group_names, most_epochs, names)
        # cached properties, as if they had been asked for
        self.training = read_training(file)
        if names is None:  # they may be larger than all else, and some statistics alone do not need them
            self.permutations = permutations_in(file, self.layers)


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
