"""Everything that is summed up between two records, and what is measured of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autospec.capture.layers import Layer, Use
from autospec.capture.row_owners import RowOwners
from autospec.errors import AutoSpecError
from autospec.recording.leading_spectra import LeadingSpectra
from autospec.spectra.constant_rows import ConstantRows
from autospec.spectra.factors import GradientFactors
from autospec.spectra.gradient import GradientSum
from autospec.spectra.groups import Grouping, SampleGroups
from autospec.spectra.layer_sums import LayerSums, relative_floor
from autospec.spectra.registered import WEIGHT
from autospec.spectra.settled import settle_spectra
from autospec.spectra.statistics import Statistic
from autospec.spectra.subspace import Subspaces
from autospec.store.schema import (
    ACTIVATION,
    ADJOINT,
    GRADIENT,
    GROUP,
    GROUP_LOSS,
    GROUP_ROWS,
    GROUP_WEIGHT,
    INDEX,
    OTHER_GROUP,
    Field,
    layer_field,
)

Measured = dict[Field, npt.ArrayLike | None]
Warn = Callable[[str, str], None]
"""Callback (layer_name, message)."""


@dataclass(frozen=True)
class EpochFacts:
    """How many batches there were, how many with losses, and the samples, loss weights and losses of each cell."""

    batches: int
    losses_given: int
    samples: list[int]
    weight: list[float]
    loss: list[float]


class EpochSums:
    """The sums of every watched layer, the samples and the losses of the batches since the last record."""

    def __init__(
        self,
        uses: Sequence[Use],
        grouping: Grouping,
        statistics: Sequence[Statistic],
        *,
        bins: int | None,
        chains: Mapping[int, int],
        warn: Warn,
        directions: int = 1,
        earlier: Mapping[str, Subspaces] | None = None,
        constant: ConstantRows | None = None,
    ) -> None:
        needs = frozenset().union(*(statistic.needs for statistic in statistics))
        self._uses = {use.name: use for use in uses}

        def begun(use: Use) -> LayerSums:
            keep = needs if use.name == use.layer.name else needs - {GRADIENT}
            chain, before = chains.get(id(use.layer.parameter)), (earlier or {}).get(use.name)
            return LayerSums(use.layer.shape, grouping, keep, bins, chain, directions, before, constant, use.name)

        self._begun = begun
        self._layers = {use.name: begun(use) for use in uses}
        self._grouping = grouping
        self._statistics = statistics
        self._warn = warn
        self.batches = 0
        self._samples = torch.zeros(grouping.cells, dtype=torch.int64)
        self._weight = torch.zeros(grouping.cells, dtype=torch.float64)
        self._loss = torch.zeros(grouping.cells, dtype=torch.float64)
        self._losses_given = 0

    def add(self, use: Use, factors: GradientFactors, groups: SampleGroups, owners: RowOwners) -> None:
        """Add one weight's factors from one backward pass.

        Args:
            use: where the weight is used.
            factors: its factors, one sample for each index of their first dimension.
            groups: the groups of the batch's samples.
            owners: which sample each of those is.

        Raises:
            AutoSpecError: where they do not fit the batch.
        """
        if factors.device != groups.of_sample.device:
            raise AutoSpecError(
                f"layer {use.name!r} is on {factors.device}, the group labels on {groups.of_sample.device}"
            )
        if owners.shared:
            self._warn(
                use.name,
                f"called with rows that several of the {len(groups.of_sample)} samples share, so the groups' parts of "
                "its gradient cannot be told apart; stored for 'all', NaN for the groups",
            )
            groups = groups.of_all(factors.samples)
        elif owners.samples is not None:
            groups = groups.of_rows(owners.samples)
        if factors.samples != len(groups.of_sample):
            raise AutoSpecError(
                f"layer {use.name!r} saw a batch of {factors.samples} samples, but {len(groups.of_sample)} group "
                "labels were given"
            )
        if use.name not in self._layers:  # a function's use of a weight that is known from the call alone
            self._layers[use.name] = self._begun(use)
        self._layers[use.name].add(factors, groups, self.batches)
        if use.name != use.layer.name:
            self._layers[use.layer.name].add_gradient(factors, groups)

    def keep(self, layer: Layer) -> Callable[[], None]:
        """Copy what is summed up of a weight; calling the result puts it back."""
        names = [name for name in self._layers if name == layer.name or name.startswith(f"{layer.name}/uses/")]
        copies = {name: copy.deepcopy(self._layers[name]) for name in names}

        def put_back() -> None:
            self._layers.update(copy.deepcopy(copies))

        return put_back

    def add_matrices(self, layer: Layer, gradients: Tensor, eps: float) -> None:
        """Add one weight's gradient, split by group already: (groups, out, in), from numbers of a spacing ``eps``."""
        self._layers[layer.name].add_matrices(gradients, eps)

    def count(self, groups: SampleGroups, weight: Tensor, loss_sums: Tensor | None) -> None:
        """Count the samples of one batch, what each one's loss was multiplied by (n,), and the groups' summed loss."""
        self.batches += 1
        self._samples += torch.tensor(groups.counts)
        self._weight += groups.sums(weight).cpu()
        if loss_sums is not None:
            self._losses_given += 1
            self._loss += loss_sums.cpu()

    def count_given(self, samples: Tensor, weight: Tensor) -> None:
        """Count a batch that was had elsewhere: samples and loss weights per cell."""
        self.batches += 1
        self._samples, self._weight = self._samples + samples, self._weight + weight

    def use(self, name: str) -> Use | None:
        """The watched use of a name, or None."""
        return self._uses.get(name)

    def facts(self) -> EpochFacts:
        """What is counted of the batches."""
        counts = (self._samples.tolist(), self._weight.tolist(), self._loss.tolist())
        return EpochFacts(self.batches, self._losses_given, *counts)

    def take_facts(self, facts: Sequence[EpochFacts], share: float) -> None:
        """Take what several processes counted, of losses that count ``share`` each."""
        self._samples = torch.tensor([one.samples for one in facts]).sum(0)
        self._weight = torch.tensor([one.weight for one in facts], dtype=torch.float64).sum(0) * share
        self._loss = torch.tensor([one.loss for one in facts], dtype=torch.float64).sum(0)
        self.batches = max(one.batches for one in facts)
        # a process without batches has no losses to give
        self._losses_given = self.batches if all(one.batches == one.losses_given for one in facts) else 0

    def begin_uses(self, names: Iterable[str]) -> None:
        """Begin the sums of uses of weights that are known from calls in other processes alone."""
        for name in dict.fromkeys(names):
            if name not in self._layers:
                layer = self._uses[name.partition("/uses/")[0]].layer
                self._layers[name] = self._begun(Use(name, layer, ""))

    @property
    def layers(self) -> Mapping[str, LayerSums]:
        """The sums of every watched use of a weight, by its name."""
        return self._layers

    @property
    def mean_and_total_loss(self) -> tuple[float | None, float | None]:
        """The mean and the sum of the samples' losses, of an epoch of one batch for which they were given."""
        if self.batches != 1 or not self._losses_given:
            return None, None
        total = float(self._loss.sum())
        return total / int(self._samples.sum()), total

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

    @property
    def numbers(self) -> int:
        """How many numbers are held until spectra are computed."""
        return sum(sums.numbers for sums in self._layers.values())

    @property
    def can_wait(self) -> bool:
        """Whether spectra are had together with others, and there is nothing to warn of.

        A gradient that is not finite is looked for where that waits for nothing.
        """
        held = [one.unsettled for one in self.gradients]
        known = [matrices for matrices in held if matrices is not None]
        all_arrived = all(sums.arrived or not self._uses[name].layer.is_trained for name, sums in self._layers.items())
        if not known or len(known) < len(held) or not all_arrived:
            return False
        return known[0].device.type != "cpu" or bool(torch.stack(torch._foreach_norm(known)).sum().isfinite())

    @property
    def gradients(self) -> list[GradientSum]:
        """The gradient of every layer that one arrived at."""
        return [sums.gradient for sums in self._layers.values() if sums.arrived and GRADIENT in sums.keep]

    def measured(
        self,
        epoch: int,
        leading: int | None,
        certified: LeadingSpectra | None = None,
        own: Container[str] | None = None,
    ) -> Measured:
        """Every quantity of the epoch that ends, by the field it is stored in; the first ``leading`` indices.

        Gradient spectra come from ``certified``, with their bounds, where it is given. ``own`` names the layers that
        are looked at, where other processes look at the others.
        """
        layers = {name: sums for name, sums in self._layers.items() if own is None or name in own}
        samples = self._grouping.sums(self._samples)
        found: Measured = {
            GROUP_ROWS: samples.numpy(),
            GROUP_WEIGHT: self._grouping.sums(self._weight).numpy(),
        }
        if self._losses_given == self.batches:
            found[GROUP_LOSS] = (self._grouping.sums(self._loss) / samples).numpy()
        if certified is not None:
            self._certify(certified, epoch)
        if certified is not None or own is not None:
            settle_spectra(one.gradient for one in layers.values() if one.arrived and GRADIENT in one.keep)
        for name, sums in layers.items():
            if not sums.arrived and not self._uses[name].layer.is_trained:
                continue
            if not sums.arrived:
                self._warn(name, f"no gradient arrived at epoch {epoch}; stored as NaN")
            found |= self._measured_layer(name, sums, epoch, leading)
        return found

    def _certify(self, certified: LeadingSpectra, epoch: int) -> None:
        """Have the leading singular values of every gradient, and their bounds."""
        for name, sums in self._layers.items():
            if GRADIENT in sums.keep:
                nothing = torch.empty(0)  # of a layer that no gradient reached
                sums.bounds = certified.settle(name, sums.gradient, epoch) if sums.arrived else nothing

    def _absent(
        self, name: str, statistic: Statistic, sums: LayerSums, leading: int | None
    ) -> npt.NDArray[np.generic] | None:
        """NaN in a statistic's shape, zero for counts; None for one whose shape only a batch tells."""
        reported = self._grouping.reported
        lengths = {GROUP: reported, OTHER_GROUP: reported, INDEX: min(sums.shape)}
        rows = statistic.needs & {ACTIVATION, ADJOINT}
        if statistic.name in rows:
            width = self._width(name.partition("/uses/")[0], statistic.name)
            if width is None:
                return None
            lengths[INDEX] = width
        if not set(statistic.dimensions) <= set(lengths):
            return None
        if leading is not None:
            lengths[INDEX] = min(lengths[INDEX], leading)
        shape = tuple(lengths[dimension] for dimension in statistic.dimensions)
        if statistic.name in ("rows", "own_rows"):
            return np.zeros(shape, dtype=np.int64)
        return np.full(shape, np.nan)

    def _width(self, layer: str, side: str) -> int | None:
        """The width of the activations or adjoints of a weight, from any of its uses."""
        uses = (sums for name, sums in self._layers.items() if name.partition("/uses/")[0] == layer)
        return next((sums.stacks[side].width for sums in uses if side in sums.stacks), None)

    def _measured_layer(self, name: str, sums: LayerSums, epoch: int, leading: int | None) -> Measured:
        found: Measured = {}
        for statistic in self._statistics:
            if not statistic.needs <= sums.keep:
                continue
            if not statistic.known(sums):
                self._say_unknown(name, statistic, sums)
                continue
            if not sums.arrived or not _has_rows(statistic, sums):
                value = self._absent(name, statistic, sums, leading)
                if value is not None:
                    found[layer_field(name, statistic.name, statistic.dimensions, _name_of(value.dtype))] = value
                continue
            computed = statistic.value(sums)
            if statistic.needs != {WEIGHT}:  # whose weight is nobody's: rows that samples share do not matter to it
                computed = sums.told_apart(computed, statistic.dimensions)
            value = computed.cpu().numpy()
            if statistic.name == GRADIENT and np.isnan(value[0]).any():
                self._warn(name, f"NaN or infinity in its gradient at epoch {epoch}; stored as NaN")
            if statistic.dimensions[-1:] == (INDEX,):
                value = value[..., :leading]
            found[layer_field(name, statistic.name, statistic.dimensions, _name_of(value.dtype))] = value
        return found

    def _say_unknown(self, name: str, statistic: Statistic, sums: LayerSums) -> None:
        for need in statistic.needs & set(sums.moments.unknown):
            self._warn(name, f"{statistic.name} is left out: {sums.moments.unknown[need]}")


@lru_cache
def _name_of(dtype: np.dtype[np.generic]) -> str:
    """The name of a dtype, which NumPy puts together anew at each look."""
    return dtype.name


def settle(records: Sequence[EpochSums]) -> None:
    """Compute the spectra of the layers of some records together."""
    settle_spectra(gradient for sums in records for gradient in sums.gradients)


def _has_rows(statistic: Statistic, sums: LayerSums) -> bool:
    """Whether the activations and adjoints that a statistic needs arrived; a tied weight's first use may have none."""
    return all(name in sums.stacks for name in statistic.needs & {ACTIVATION, ADJOINT})
