"""What a user asks of permutations: how many, of which pairs, within which strata; every mistake in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autospec.analysis.joint_relabelling import FEWEST_GROUPS
from autospec.analysis.relabelling import pick_evenly
from autospec.errors import AutoSpecError
from autospec.recording.covariates import SubjectName, checked_covariates
from autospec.recording.schedule import Schedule
from autospec.spectra.groups import Grouping
from autospec.store.groups import Pair, pairs_of
from autospec.store.schema import ALL

TARGET = (
    "the groups are what the model is trained to tell apart (target_is_group=True), so weights depend on the compared "
    "labels; only retraining with permuted labels would test it"
)
NOT_AMONG = "not among pairs="


@dataclass(frozen=True)
class PermutationRequest:
    """The arguments of ``SpectralRecorder`` that say how labels are permuted.

    Attributes:
        permutations: How many partitions are drawn beside the observed one.
        parts: Of every pair that can be compared the disjoint groups, by index, that its two sides are made of.
        refused: Why other pairs are not tested.
        subjects: Whose each sample of the data set is, in its order; None where batches say it.
        strata: By column the level of every subject.
        epochs: When labels are permuted; None is ever more rarely, as the number of epochs is not known.
        every: At which epochs spectra are taken.
        seed: The seed of the drawing.
        omnibus: The groups that are tested at once; none where they are not to be.
        refused_omnibus: Why they are not tested all the same.
        covariates: By name the number of every subject.
    """

    permutations: int
    parts: Mapping[Pair, tuple[tuple[int, ...], tuple[int, ...]]]
    refused: Mapping[Pair, str]
    subjects: tuple[SubjectName, ...] | None = None
    strata: Mapping[str, Mapping[SubjectName, str]] = field(default_factory=dict)
    epochs: tuple[int, ...] | None = None
    every: int = 1
    seed: int = 0
    omnibus: tuple[str, ...] = ()
    refused_omnibus: str = ""
    covariates: Mapping[str, Mapping[SubjectName, float]] = field(default_factory=dict)

    @property
    def asks_nothing(self) -> bool:
        """Whether nothing is to be permuted."""
        return not self.parts and not self.covariates and (not self.omnibus or bool(self.refused_omnibus))

    def is_due(self, epoch: int) -> bool:
        """Whether labels are permuted at an epoch: at the chosen ones, or at records 0, 1, 2, 4, 8, ..."""
        if self.asks_nothing:
            return False
        if self.epochs is not None:
            return epoch in self.epochs
        record, rest = divmod(epoch, self.every)
        return rest == 0 and record & (record - 1) == 0


def permutation_request(
    permutations: int,
    grouping: Grouping,
    schedule: Schedule,
    *,
    target_is_group: bool | None,
    subjects: Iterable[Any] | None,
    strata: Mapping[str, Any] | None,
    pairs: Sequence[Sequence[str]] | None,
    count: int,
    seed: int,
    omnibus: bool | None = None,
    covariates: Mapping[str, Any] | None = None,
) -> PermutationRequest:
    """Check the arguments that a recorder was given; AutoSpecError for those that do not fit."""
    if not isinstance(target_is_group, bool):
        raise AutoSpecError(
            f"permutations={permutations}: say by target_is_group=True or False whether the groups are what the model "
            "learns to tell apart; its weights then depend on the labels, and permuting these would be no test"
        )
    names = None if subjects is None else tuple(subject_names(subjects, "subjects"))
    possible, wanted = _every_pair(grouping), _wanted(pairs, grouping)
    tested = {} if target_is_group else {pair: parts for pair, parts in possible.items() if _is_among(pair, wanted)}
    refused = {pair: TARGET if target_is_group else NOT_AMONG for pair in possible if pair not in tested}
    levels = {column: _levels(column, values, names) for column, values in (strata or {}).items()}
    recorded = None if schedule.epochs is None else [e for e in range(schedule.epochs) if schedule.takes(e)]
    epochs = None if recorded is None else pick_evenly(recorded, count)
    groups = wanted_omnibus(omnibus, grouping.names[1 : 1 + grouping.disjoint])
    return PermutationRequest(
        permutations,
        tested,
        refused,
        names,
        levels,
        epochs,
        schedule.every,
        seed,
        groups,
        TARGET if target_is_group else "",
        checked_covariates(covariates, names),
    )


def wanted_omnibus(omnibus: bool | None, groups: Sequence[str]) -> tuple[str, ...]:
    """The groups that are tested at once; AutoSpecError where that is asked for and there are fewer than three."""
    if omnibus and len(groups) < FEWEST_GROUPS:
        raise AutoSpecError(
            f"omnibus=True: there are {len(groups)} groups ({', '.join(groups)}), and {FEWEST_GROUPS} or more are "
            "tested at once; two are a pair, which has a test of its own"
        )
    wanted = len(groups) >= FEWEST_GROUPS if omnibus is None else omnibus
    return tuple(groups) if wanted else ()


def subject_names(subjects: Any, argument: str) -> list[SubjectName]:
    """Names of subjects, numbers or text, from a list, an array or a tensor."""
    values = subjects.tolist() if hasattr(subjects, "tolist") else list(subjects)
    names = [value.item() if isinstance(value, np.generic) else value for value in values]
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise AutoSpecError(
                f"{argument}={name!r}: whose each sample is, is said by a whole number or a name for each sample"
            )
    return names


def _every_pair(grouping: Grouping) -> dict[Pair, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every pair that shares no sample, with the disjoint groups of both sides."""
    parts = {
        name: tuple(row[:-1].nonzero()[:, 0].tolist())
        for name, row in zip(grouping.names, grouping.members, strict=True)
    }
    disjoint = grouping.names[1 : 1 + grouping.disjoint]
    members = {name: frozenset(disjoint[index] for index in indices) for name, indices in parts.items()}
    return {(a, b): (parts[a], parts[b]) for a, b in pairs_of(grouping.names, members)}


def _wanted(pairs: Sequence[Sequence[str]] | None, grouping: Grouping) -> set[frozenset[str]] | None:
    if pairs is None:
        return None
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise AutoSpecError(f"pairs: {pair!r} must be two groups, such as {tuple(grouping.names[1:3])}")
        unknown = [name for name in pair if name not in grouping.names or name == ALL]
        if unknown:
            raise AutoSpecError(f"pairs: there is no group {unknown[0]!r}; there are {', '.join(grouping.names[1:])}")
    possible = [frozenset(pair) for pair in _every_pair(grouping)]
    for pair in pairs:
        if frozenset(pair) not in possible:
            raise AutoSpecError(f"pairs: {pair[0]} and {pair[1]} share samples; compare two groups that share none")
    return {frozenset(pair) for pair in pairs}


def _is_among(pair: Pair, wanted: set[frozenset[str]] | None) -> bool:
    return wanted is None or frozenset(pair) in wanted


def _levels(column: str, values: Any, subjects: Sequence[SubjectName] | None) -> dict[SubjectName, str]:
    """The level of each subject in a column, given by subject, or sample by sample beside ``subjects``."""
    if isinstance(values, Mapping):
        return {name: str(level) for name, level in values.items()}
    if subjects is None:
        raise AutoSpecError(
            f"strata: {column!r} must say the level of each subject by name, {{subject: level}}; one for each sample "
            "needs subjects= as well"
        )
    levels = [str(level) for level in (values.tolist() if hasattr(values, "tolist") else values)]
    if len(levels) != len(subjects):
        raise AutoSpecError(f"strata: {column!r} has {len(levels)} values, but subjects has {len(subjects)}")
    found: dict[SubjectName, str] = {}
    for subject, level in zip(subjects, levels, strict=True):
        if found.setdefault(subject, level) != level:
            raise AutoSpecError(
                f"strata: subject {subject!r} has two values of {column!r}, {found[subject]} and {level}"
            )
    return found
