"""Everything that is summed up between two records, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autospec.capture.layers import Layer, Use
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors
from autospec.spectra.gradient import settle_spectra
from autospec.spectra.groups import Grouping, SampleGroups
from autospec.spectra.layer_sums import LayerSums, relative_floor
from autospec.spectra.statistics import Statistic
from autospec.spectra.subspace import Subspaces
from autospec.store.schema import GRADIENT, GROUP_LOSS, GROUP_ROWS, GROUP_WEIGHT, INDEX, Field, layer_field

Measured = dict[Field, npt.ArrayLike | None]
Warn = Callable[[str, str], None]
"""Takes a layer's name and what there is to say of it."""


class EpochSums:
    """The sums of every watched layer, the samples and the losses of the batches since the last record."""

    def __init__(
        self,
        uses: Sequence[Use],
        grouping: Grouping,
        statistics: Sequence[Statistic],
        *,
        mean_loss: bool,
        bins: int | None,
        chains: Mapping[int, int],
        warn: Warn,
        directions: int = 1,
        earlier: Mapping[str, Subspaces] | None = None,
    ) -> None:
        needs = frozenset().union(*(statistic.needs for statistic in statistics))
        self._layers: dict[str, LayerSums] = {}
        for use in uses:
            keep = needs if use.name == use.layer.name else needs - {GRADIENT}
            chain, before = chains.get(id(use.layer.parameter)), (earlier or {}).get(use.name)
            self._layers[use.name] = LayerSums(use.layer.shape, grouping, keep, bins, chain, directions, before)
        self._grouping = grouping
        self._statistics = statistics
        self._mean_loss = mean_loss
        self._warn = warn
        self.batches = 0
        self._samples = torch.zeros(grouping.cells, dtype=torch.int64)
        self._weight = torch.zeros(grouping.cells, dtype=torch.float64)
        self._loss = torch.zeros(grouping.cells, dtype=torch.float64)
        self._losses_given = 0

    def add(self, use: Use, factors: GradientFactors, cells: SampleGroups) -> None:
        """Add one weight's factors from one backward pass; AutoSpecError where they do not fit the batch."""
        if factors.device != cells.of_sample.device:
            raise AutoSpecError(
                f"layer {use.name!r} is on {factors.device}, the group labels on {cells.of_sample.device}"
            )
        if factors.samples == 1 < len(cells.of_sample):
            self._warn(
                use.name,
                f"called with one row that all {len(cells.of_sample)} samples share, so the groups' parts of its "
                "gradient cannot be told apart; stored for 'all', NaN for the groups",
            )
            cells = cells.of_all()
        if factors.samples != len(cells.of_sample):
            raise AutoSpecError(
                f"layer {use.name!r} saw a batch of {factors.samples} samples, but {len(cells.of_sample)} group labels "
                "were given; the first dimension of its input must be the sample (or 1, where all samples share it)"
            )
        self._layers[use.name].add(factors, cells)
        if use.name != use.layer.name:
            self._layers[use.layer.name].add_gradient(factors, cells)

    def add_matrices(self, layer: Layer, gradients: Tensor, eps: float) -> None:
        """Add one weight's gradient, split by cell already: (cells, out, in), from numbers of a spacing ``eps``."""
        self._layers[layer.name].add_matrices(gradients, eps)

    def count(self, cells: SampleGroups, loss_sums: Tensor | None) -> None:
        """Count the samples of one batch and their losses, (cells,) where given."""
        counts = torch.tensor(cells.counts)
        self.batches += 1
        self._samples += counts
        self._weight += counts.double() / (counts.sum() if self._mean_loss else 1)
        if loss_sums is not None:
            self._losses_given += 1
            self._loss += loss_sums.cpu()

    @property
    def layers(self) -> Mapping[str, LayerSums]:
        """The sums of every watched use of a weight, by its name."""
        return self._layers

    def whole_gradient(self, layer: Layer) -> tuple[Tensor, float]:
        """The gradient of all samples so far, (out, in), and what naive summation of its terms may be off by."""
        sums = self._layers[layer.name]
        if sums.only_gradients:
            return sums.gradient.gradients()[0], sums.eps * float(sums.gradient.norms_of_cells().sum())
        rows = float(self._grouping.sums(sums.rows)[0])
        return sums.gradient.gradients()[0], sums.eps * (1 + rows**0.5 / 64) * float(sums.norm_product()[0])

    def subspaces(self) -> dict[str, Subspaces]:
        """Every layer's leading subspaces, for the record that comes after this one."""
        return {name: sums.subspaces for name, sums in self._layers.items() if sums.arrived and GRADIENT in sums.keep}

    def relative_floors(self) -> dict[str, dict[str, float]]:
        """The noise floor of each gradient relative to the norms of its factors, by layer and reported group."""
        names = self._grouping.names
        return {
            layer: dict(zip(names, relative_floor(sums).tolist(), strict=True)) for layer, sums in self._layers.items()
        }

    def measured(self, epoch: int, leading: int | None) -> Measured:
        """Every quantity of the epoch that ends, by the field it is stored in; the first ``leading`` indices."""
        samples = self._grouping.sums(self._samples)
        found: Measured = {
            GROUP_ROWS: samples.numpy(),
            GROUP_WEIGHT: self._grouping.sums(self._weight).numpy(),
        }
        if self._losses_given == self.batches:
            found[GROUP_LOSS] = (self._grouping.sums(self._loss) / samples).numpy()
        settle_spectra(sums.gradient for sums in self._layers.values() if sums.arrived and GRADIENT in sums.keep)
        for name, sums in self._layers.items():
            if sums.arrived:
                found |= self._measured_layer(name, sums, epoch, leading)
            else:
                self._warn(name, f"no gradient arrived at epoch {epoch}; stored as NaN")
        return found

    def _measured_layer(self, name: str, sums: LayerSums, epoch: int, leading: int | None) -> Measured:
        found: Measured = {}
        for statistic in self._statistics:
            if not statistic.needs <= sums.keep or not statistic.known(sums):
                continue
            value = sums.told_apart(statistic.value(sums), statistic.dimensions).cpu().numpy()
            if statistic.name == GRADIENT and np.isnan(value[0]).any():
                self._warn(name, f"NaN or infinity in its gradient at epoch {epoch}; stored as NaN")
            if statistic.dimensions[-1:] == (INDEX,):
                value = value[..., :leading]
            found[layer_field(name, statistic.name, statistic.dimensions, value.dtype.name)] = value
        return found
