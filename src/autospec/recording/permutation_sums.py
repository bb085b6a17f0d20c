"""What is summed up person by person at an epoch at which people are relabelled."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence

import numpy.typing as npt
import torch
from torch import Tensor

from autospec.capture.layers import Layer, Use
from autospec.capture.row_owners import RowOwners
from autospec.errors import AutoSpecError
from autospec.recording.processes import Processes
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import SampleGroups
from autospec.spectra.subject_sums import Ratios, SubjectSums, loss_ratios
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.schema import PERMUTATION_EPOCHS, PERMUTATION_LOSS, PERMUTATION_RATIOS, Field, permutation_field


class PermutationSums:
    """The gradients, losses and loss weights of every person since the last record, and the time that they took.

    Nothing here touches the model, its graph or a random state: training goes on as it would.
    """

    def __init__(self, permutation_design: PermutationDesign, uses: Sequence[Use], mean_loss: bool) -> None:
        self._permutation_design = permutation_design
        self._mean_loss = mean_loss
        self._layers = {use.layer.name: SubjectSums(use.layer.shape, permutation_design.subjects) for use in uses}
        self._weight = torch.zeros(permutation_design.subjects, dtype=torch.float64)
        self._counts = torch.zeros(permutation_design.subjects, dtype=torch.float64)
        self._losses: Tensor | None = torch.zeros(permutation_design.subjects, dtype=torch.float64)
        self.cost_s = 0.0

    def subjects_of(self, samples: Tensor | None, groups: SampleGroups) -> Tensor:
        """(n,): whose each sample of a batch is; AutoSpecError where ``samples`` do not say it."""
        subject = torch.from_numpy(self._permutation_design.subject)
        subject = subject if samples is None else subject[samples.cpu()]
        if len(subject) != len(groups.of_sample):
            raise AutoSpecError(
                f"{len(groups.of_sample)} labels, but relabellings of {len(subject)} samples; "
                "recorder.batch(group, samples=...) says which samples a batch holds"
            )
        return subject.to(groups.of_sample.device)

    def add(self, use: Use, factors: GradientFactors, subject: Tensor, owners: RowOwners) -> None:
        """Add one weight's factors from one backward pass; ``owners`` says which sample each row is."""
        started = time.monotonic()
        if owners.shared:
            subject = subject[:0]  # nobody's
        elif owners.samples is not None:
            subject = subject[owners.samples.clamp_min(0)]  # what has no owner has no gradient
        self._layers[use.layer.name].add(factors, subject)
        self.cost_s += time.monotonic() - started

    def keep(self, layer: Layer) -> Callable[[], None]:
        """Copy what is summed up of a weight; calling the result puts it back."""
        kept = copy.deepcopy(self._layers[layer.name])

        def put_back() -> None:
            self._layers[layer.name] = copy.deepcopy(kept)

        return put_back

    def count(self, subject: Tensor, weight: Tensor, losses: Tensor | None) -> None:
        """Count the samples of one batch, their loss weights (n,), and their losses where given."""
        subject, weight = subject.cpu(), weight.cpu()
        self._counts.index_add_(0, subject, torch.ones(len(subject), dtype=torch.float64))
        self._weight.index_add_(0, subject, weight / (weight.sum() if self._mean_loss else 1))
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
        pairs = self._permutation_design.pairs
        members = [torch.from_numpy(pair.members) for pair in pairs]
        found: dict[Field, npt.ArrayLike | None] = {PERMUTATION_EPOCHS: epoch}
        for layer, sums in self._layers.items():
            of_groups = floors[layer]
            of_pairs = [
                sums.ratios(partitions, self._weight, max(of_groups[pair.a], of_groups[pair.b]))
                for pair, partitions in zip(pairs, members, strict=True)
            ]
            found |= {permutation_field(layer, name): _stacked(of_pairs, name) for name in PERMUTATION_RATIOS}
        if self._losses is not None:
            losses = self._losses
            found[PERMUTATION_LOSS] = torch.stack([loss_ratios(losses, self._counts, own) for own in members]).numpy()
        self.cost_s += time.monotonic() - started
        return found


_RATIOS = {
    "log_ratio": lambda ratios: ratios.spectrum,
    "log_norm": lambda ratios: ratios.norm,
    "log_effective_rank": lambda ratios: ratios.effective_rank,
    "cancellation": lambda ratios: ratios.cancellation,
}


def _stacked(of_pairs: Sequence[Ratios], name: str) -> npt.ArrayLike:
    return torch.stack([_RATIOS[name](ratios).cpu() for ratios in of_pairs]).numpy()
