"""What can be asked of a run's spectra beside their values: pictures, tests, a summary, files for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from autospec.store.schema import GRADIENT

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Questions:
    """The questions that ``Spectra`` answers through other modules.

    Most are answered by rooms above this one, which import it: they are named, and loaded when they are used, so that
    reading stands below drawing and needs neither matplotlib nor scipy. Files for other programs need an extra each.
    """

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
