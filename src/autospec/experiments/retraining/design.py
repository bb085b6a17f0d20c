"""Whose labels are permuted in which network, where the groups are what a classifier learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError
from autospec.experiments.config.pairs import pairs_in_front
from autospec.experiments.config.schema import ExperimentConfig, Task
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.permutation_design import compared_columns, permutation_design
from autospec.recording.schedule import Schedule
from autospec.store.groups import Pair
from autospec.store.permuted_pairs import PairPermutations, PermutationDesign

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RetrainingDesign:
    """What ``1 + permutations`` networks learn, the first of them with the observed labels.

    Attributes:
        design: The permuted pairs, which share no subject, and why other pairs have none.
        target: (networks, n) the class of every training sample.
    """

    design: PermutationDesign
    target: Codes

    @property
    def pairs(self) -> tuple[PairPermutations, ...]:
        """The pairs that are tested."""
        return self.design.pairs

    def sides(self, networks: slice) -> npt.NDArray[np.int8]:
        """Return (networks, pair, n): 1 for a sample of a pair's first group, 2 for one of its second, 0 for others."""
        members = np.stack([pair.members[networks] for pair in self.pairs], axis=1)
        return members[:, :, self.design.subject]


def retraining_design(config: ExperimentConfig, data: Dataset, permutations: int) -> RetrainingDesign:
    """Permute what a classifier learns together with the groups that are made of it.

    Labels are permuted within each pair and its strata, of all pairs at once: a network learns from the permuted labels
    of every pair, so that one set of networks tests them all. What nobody permutes stays.

    Args:
        config: The run's configuration.
        data: The run's samples.
        permutations: How often labels are permuted.

    Returns:
        The design; without pairs where none can be tested, with the reasons.

    Raises:
        AutoSpecError: The network is no classifier, or a pair in front names no group.
    """
    target = config.dataset.target
    if config.task is not Task.classification:
        raise AutoSpecError(
            f"retrain: task={config.task.value} learns no labels, so its groups are tested at fixed weights; "
            "see introspection.permutations"
        )
    pairs, refused = _learned_pairs(config, data)
    introspection = replace(
        config.introspection,
        permutations=permutations,
        permutation_pairs=[list(pair) for pair in pairs],
        omnibus=False,
        covariates=[],
    )
    schedule = Schedule(config.introspection.every, config.epochs)
    recorded = [epoch for epoch in range(config.epochs) if schedule.takes(epoch)]
    residualized = getattr(config.dataset, "residualize", ())
    # as if the labels took no part in training: which of them can be exchanged does not depend on it
    design = permutation_design(data, introspection, config.dataset.group_by, None, recorded, residualized)
    asked = {pair: reason for pair, reason in design.refused.items() if pair in pairs or pair[::-1] in pairs}
    design = replace(design, refused={**refused, **asked})
    learned = np.tile(data.target[data.training], (1 + permutations, 1))
    for pair in design.pairs:
        _hand_out(learned, pair.members[:, design.subject], data, target)
    return RetrainingDesign(design, learned)


def _learned_pairs(config: ExperimentConfig, data: Dataset) -> tuple[list[Pair], dict[Pair, str]]:
    """The pairs in front whose groups differ in what is learned, as far as they share nobody."""
    parts: Mapping[str, Sequence[str]] = {**{name: (name,) for name in data.groups}, **data.margins}
    taken: set[str] = set()
    kept: list[Pair] = []
    refused: dict[Pair, str] = {}
    for a, b in pairs_in_front(config.figure.pairs, [*data.groups, *data.margins]):
        members = {*parts[a], *parts[b]}
        if config.dataset.target not in compared_columns(parts[a], parts[b], config.dataset.group_by):
            continue
        if members & taken:
            refused[a, b] = (
                "another pair that is retrained has subjects of this one; ask for one of them (figure.pairs)"
            )
            continue
        taken |= members
        kept.append((a, b))
    return kept, refused


def _hand_out(learned: Codes, sides: npt.NDArray[np.int8], data: Dataset, target: str) -> None:
    """Give every network the class that its side of the pair has."""
    observed, classes = sides[0], learned[0].copy()
    for code in (1, 2):
        own = np.unique(classes[observed == code])
        if len(own) != 1:  # a group that is made of the target has one class of it
            raise AutoSpecError(f"retrain: a group has {len(own)} classes of {target}, so its label cannot be permuted")
        learned[sides == code] = own[0]
