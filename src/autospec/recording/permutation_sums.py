"""What is summed up person by person at an epoch at which people are relabelled."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autospec.analysis.joint_values import dispersions, rank_correlations
from autospec.capture.layers import Layer, Use
from autospec.capture.row_owners import RowOwners
from autospec.errors import AutoSpecError
from autospec.recording.processes import Processes
from autospec.recording.subject_register import Subjects
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import SampleGroups
from autospec.spectra.subject_sums import Ratios, SubjectSums, loss_ratios
from autospec.store.schema import (
    ALL,
    COVARIATE,
    JOINT_VALUES,
    OMNIBUS,
    PERMUTATION_EPOCHS,
    PERMUTATION_LOSS,
    PERMUTATION_RATIOS,
    Field,
    joint_field,
    permutation_field,
)


class PermutationSums:
    """The gradients, losses and loss weights of every person since the last record, and the time that they took.

    Nothing here touches the model, its graph or a random state: training goes on as it would.
    """

    def __init__(self, subjects: Subjects, uses: Sequence[Use]) -> None:
        self._subjects = subjects
        self._room = subjects.count
        self._layers = {use.layer.name: SubjectSums(use.layer.shape, self._room) for use in uses}
        self._weight = torch.zeros(self._room, dtype=torch.float64)
        self._counts = torch.zeros(self._room, dtype=torch.float64)
        self._losses: Tensor | None = torch.zeros(self._room, dtype=torch.float64)
        self.cost_s = 0.0

    def subjects_of(self, samples: Tensor | None, subject: Any, groups: SampleGroups) -> Tensor:
        """(n,): whose each sample of a batch is; AutoSpecError where nothing says it."""
        found = self._subjects.of_batch(samples, subject, groups)
        if self._subjects.count > self._room:
            self._grow(max(self._subjects.count, 2 * self._room))
        return found

    def _grow(self, room: int) -> None:
        """Make room for people who were not met before."""
        self._check_memory(room)
        for sums in self._layers.values():
            sums.grow(room)
        more = torch.zeros(room - self._room, dtype=torch.float64)
        self._weight, self._counts = torch.cat([self._weight, more]), torch.cat([self._counts, more])
        self._losses = None if self._losses is None else torch.cat([self._losses, more])
        self._room = room

    def _check_memory(self, subjects: int, *more: SubjectSums) -> None:
        """AutoSpecError where the gradients of so many people would take more than half of the machine's memory."""
        held = [*(sums for sums in self._layers.values() if sums.is_multiplied), *more]
        needed = 4 * subjects * sum(sums.shape[0] * sums.shape[1] for sums in held)
        room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        if needed > room:
            raise AutoSpecError(
                f"permutations keep every subject's gradient: {needed / 1e9:.1f} GB for {subjects} subjects, of "
                f"{room / 1e9:.1f} GB that may be taken; choose fewer weights by layers=[...], or permutations=0"
            )

    def add(self, use: Use, factors: GradientFactors, subject: Tensor, owners: RowOwners) -> None:
        """Add one weight's factors from one backward pass; ``owners`` says which sample each row is."""
        started = time.monotonic()
        if owners.shared:
            subject = subject[:0]  # nobody's
        elif owners.samples is not None:
            subject = subject[owners.samples.clamp_min(0)]  # what has no owner has no gradient
        sums = self._layers[use.layer.name]
        if not sums.is_multiplied and not sums.keeps_rows_of(factors):
            self._check_memory(self._room, sums)
        sums.add(factors, subject)
        self.cost_s += time.monotonic() - started

    def keep(self, layer: Layer) -> Callable[[], None]:
        """Copy what is summed up of a weight; calling the result puts it back."""
        kept = copy.deepcopy(self._layers[layer.name])

        def put_back() -> None:
            self._layers[layer.name] = copy.deepcopy(kept)

        return put_back

    def count(self, subject: Tensor, weight: Tensor, losses: Tensor | None) -> None:
        """Count the samples of one batch, what their losses were multiplied by (n,), and these where given."""
        subject, weight = subject.cpu(), weight.cpu()
        self._counts.index_add_(0, subject, torch.ones(len(subject), dtype=torch.float64))
        self._weight.index_add_(0, subject, weight)
        if losses is None or self._losses is None:
            self._losses = None
        else:
            self._losses.index_add_(0, subject, losses.detach().double().cpu())

    def join(self, processes: Processes, share: float) -> None:
        """Replace the sums of one process by those of all (see ``joint_epoch.join``)."""
        own = {name: (sums.dtype, sums.eps, sums.told_apart) for name, sums in self._layers.items()}
        of_processes = processes.gather((own, self._losses is not None))
        losses = torch.zeros_like(self._weight) if self._losses is None else self._losses
        counts = processes.add_up([self._weight * share, self._counts, losses])
        self._weight, self._counts = counts[0], counts[1]
        self._losses = counts[2] if all(has_losses for _, has_losses in of_processes) else None
        for name, sums in self._layers.items():
            facts = [layers[name] for layers, _ in of_processes]
            dtypes = [dtype for dtype, _, _ in facts if dtype is not None]
            if dtypes:
                dtype = torch.float64 if torch.float64 in dtypes else torch.float32
                gradients, norms = processes.add_up(sums.summands(dtype, share))
                sums.replace(gradients, norms, max(eps for _, eps, _ in facts), all(apart for *_, apart in facts))

    def measured(self, epoch: int, floors: Mapping[str, Mapping[str, float]]) -> dict[Field, npt.ArrayLike | None]:
        """The ratios of every partition of every pair, by the field that they are stored in.

        ``floors``: the noise floor of each group's gradient relative to its factors' norms, by layer and group.
        """
        started = time.monotonic()
        design = self._subjects.design()
        if design.is_empty:
            return {}
        pairs = design.pairs
        members = [self._padded(self._subjects.in_order(pair.members)) for pair in pairs]
        found: dict[Field, npt.ArrayLike | None] = {PERMUTATION_EPOCHS: epoch}
        for layer, sums in self._layers.items():
            of_groups = floors[layer]
            of_pairs = [
                sums.ratios(partitions, self._weight, max(of_groups[pair.a], of_groups[pair.b]))
                for pair, partitions in zip(pairs, members, strict=True)
            ]
            if pairs:
                found |= {permutation_field(layer, name): _stacked(of_pairs, name) for name in PERMUTATION_RATIOS}
            found |= self._joint(layer, sums, of_groups)
        if self._losses is not None and pairs:
            losses = self._losses
            found[PERMUTATION_LOSS] = torch.stack([loss_ratios(losses, self._counts, own) for own in members]).numpy()
        self.cost_s += time.monotonic() - started
        return found

    def _joint(self, layer: str, sums: SubjectSums, floors: Mapping[str, float]) -> dict[Field, npt.ArrayLike | None]:
        """What all groups at once and covariates give in one layer."""
        design, found = self._subjects.design(), dict[Field, npt.ArrayLike | None]()
        if (groups := design.omnibus) is not None:
            members = self._padded(self._subjects.in_order(groups.members))
            floor = max(floors[name] for name in groups.groups)
            deviations = sums.deviations(members, len(groups.groups), self._weight, floor)
            for name, values in zip(JOINT_VALUES[OMNIBUS], dispersions(deviations.cpu().numpy()), strict=True):
                found[joint_field(layer, OMNIBUS, name)] = values
        if design.covariates:
            ranks = [self._subjects.in_order(covariate.ranks).numpy() for covariate in design.covariates]
            correlations = [self._correlations(sums, own, floors[ALL]) for own in ranks]
            found[joint_field(layer, COVARIATE, "rank_correlation")] = np.stack(correlations)
        return found

    def _correlations(self, sums: SubjectSums, ranks: npt.NDArray[np.float64], floor: float) -> npt.NDArray[np.float64]:
        """(1 + P, K) of one covariate, whose ``ranks`` are NaN for whoever takes no part."""
        concerned = np.flatnonzero(np.isfinite(ranks[0]))
        contributions = sums.contributions(torch.from_numpy(concerned), self._weight, floor)
        return rank_correlations(ranks[:, concerned], contributions.cpu().numpy())

    def _padded(self, members: Tensor) -> Tensor:
        """(1 + P, room): the room for people who never came is on neither side."""
        return torch.nn.functional.pad(members, (0, self._room - members.shape[1]))


_RATIOS = {
    "log_ratio": lambda ratios: ratios.spectrum,
    "log_norm": lambda ratios: ratios.norm,
    "log_effective_rank": lambda ratios: ratios.effective_rank,
    "cancellation": lambda ratios: ratios.cancellation,
}


def _stacked(of_pairs: Sequence[Ratios], name: str) -> npt.ArrayLike:
    return torch.stack([_RATIOS[name](ratios).cpu() for ratios in of_pairs]).numpy()
