"""Which pairs of groups can be tested by permuting the labels of subjects, and the permutations.

A permutation test at fixed weights is exact where the compared label took no part in training. The unit is a subject,
whose samples move together; labels are permuted within the compared pair and within strata.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from autospec.analysis.relabelling import NUMBER_OF_SAMPLES, observed_partition, permute_labels, pick_evenly
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import ExperimentConfig, IntrospectionConfig, Task
from autospec.experiments.datasets.dataset import LEVERAGE, Dataset
from autospec.experiments.joint_design import DEFAULT_STRATA, PAIRED, UNEQUAL, JointQuestions, Units, labels_apart
from autospec.recording.schedule import Schedule
from autospec.store.groups import pairs_of
from autospec.store.permuted_pairs import NOT_ASKED, PairPermutations, PermutationDesign

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Question:
    """A pair of groups, the disjoint groups that each is made of, and the columns in which the two differ."""

    a: str
    b: str
    parts: tuple[tuple[str, ...], tuple[str, ...]]
    compared: frozenset[str] = field(default_factory=frozenset)


def permutation_design(
    data: Dataset,
    config: IntrospectionConfig,
    group_by: list[str],
    target: str | None,
    recorded: list[int],
    residualized: Collection[str] = (),
) -> PermutationDesign:
    """Return the permuted partitions of a data set's training subjects.

    Args:
        data: the samples, their groups and the columns of their subjects.
        config: the number and the seed of the permutations, the strata, the pairs that are wanted. The pairs are
            checked already (``config.pairs``).
        group_by: the columns that the groups are made of.
        target: the column that a classifier learns; None for an autoencoder.
        recorded: the epochs at which spectra are taken.
        residualized: the columns whose effect was taken out of the data.

    Raises:
        AutoSpecError: for a stratum that is no column of the data.
    """
    first, subject = _units(np.array(data.subjects)[data.training], data.group[data.training])
    subjects = _subjects(data, first, np.bincount(subject), target)
    unknown = [name for name in config.strata if name not in subjects.columns and name not in DEFAULT_STRATA]
    if unknown:
        raise AutoSpecError(
            f"introspection.strata: the data have no column {unknown[0]!r}; there are {', '.join(subjects.columns)}"
        )
    pairs: list[PairPermutations] = []
    refused: dict[tuple[str, str], str] = {}
    wanted = _wanted_pairs(config, data)
    for question in _questions(data, group_by):
        if (question.a, question.b) not in wanted:
            refused[question.a, question.b] = NOT_ASKED
            continue
        permuted: PairPermutations | str = _refusal(question, target, residualized, config.permutations)
        permuted = permuted or _permute(question, subjects, data.groups, config, target, group_by, residualized)
        if isinstance(permuted, str):
            refused[question.a, question.b] = permuted
        else:
            pairs.append(permuted)
    joint = JointQuestions(data, subjects, config, group_by, target, residualized).permute()
    design = PermutationDesign(tuple(pairs), refused, subject, **joint)
    return design if design.is_empty else replace(design, epochs=pick_evenly(recorded, config.permutation_epochs))


def run_permutations(config: ExperimentConfig, data: Dataset) -> PermutationDesign:
    """Return the permuted partitions that a run records beside its groups.

    Args:
        config: the run's; a classifier's target stays with each subject, an autoencoder has none.
        data: the run's samples.

    Raises:
        AutoSpecError: for a stratum that is no column of the data.
    """
    schedule = Schedule(config.introspection.every, config.epochs)
    target = config.dataset.target if config.task is Task.classification else None
    recorded = [epoch for epoch in range(config.epochs) if schedule.takes(epoch)]
    residualized = getattr(config.dataset, "residualize", ())
    return permutation_design(data, config.introspection, config.dataset.group_by, target, recorded, residualized)


def _units(names: npt.NDArray[np.str_], group: npt.NDArray[np.int64]) -> tuple[Places, Places]:
    """The first sample of each unit that changes groups as a whole, and (sample,) each sample's unit."""
    # a subject; or a subject's samples in one group, where any subject has samples in several
    _, first, subject = np.unique(names, return_index=True, return_inverse=True)
    subject = subject.reshape(-1)
    if (group != group[first][subject]).any():
        _, first, subject = np.unique(np.stack([subject, group], 1), axis=0, return_index=True, return_inverse=True)
    return first.astype(np.int64), subject.reshape(-1).astype(np.int64)


def _subjects(data: Dataset, first: npt.NDArray[np.int64], samples: npt.NDArray[np.int64], target: str | None) -> Units:
    """The subjects, each described by the first of their ``samples``, whose places are ``first``."""
    columns = {name: np.array(values, dtype=str)[data.training][first] for name, values in data.columns.items()}
    if target is not None:
        columns[target] = np.array(data.classes)[data.target[data.training][first]]
    if len(set(samples.tolist())) > 1:
        columns[NUMBER_OF_SAMPLES] = samples.astype(str)
    return Units(np.array(data.subjects)[data.training][first], data.group[data.training][first], columns)


def _questions(data: Dataset, group_by: list[str]) -> list[_Question]:
    """Every pair of groups or margins that share no subject."""
    parts = {**{name: (name,) for name in data.groups}, **data.margins}
    members = {name: frozenset(disjoint) for name, disjoint in parts.items()}
    return [
        _Question(a, b, (parts[a], parts[b]), compared_columns(parts[a], parts[b], group_by))
        for a, b in pairs_of(list(parts), members)
    ]


def compared_columns(a: Collection[str], b: Collection[str], group_by: Sequence[str]) -> frozenset[str]:
    """Return the columns in which every group of one side differs from every group of the other.

    Args:
        a: the disjoint groups of one side.
        b: those of the other.
        group_by: the columns that groups are made of.
    """

    def levels(groups: Collection[str], position: int) -> set[str]:
        # the name of a group by one column may hold a slash that separates nothing
        return {group.split("/")[position] if len(group_by) > 1 else group for group in groups}

    return frozenset(name for i, name in enumerate(group_by) if not levels(a, i) & levels(b, i))


def _wanted_pairs(config: IntrospectionConfig, data: Dataset) -> set[tuple[str, str]]:
    """The pairs to be tested, in either order; every one unless the configuration names some."""
    names = [*data.groups, *data.margins]
    given = config.permutation_pairs
    if given is None or not config.permutations:
        return {(a, b) for a in names for b in names}
    return {(pair[0], pair[1]) for pair in given} | {(pair[1], pair[0]) for pair in given}


def _refusal(question: _Question, target: str | None, residualized: Collection[str], permutations: int) -> str:
    """Why a pair cannot be tested at fixed weights; empty where it can."""
    if target is not None and target in question.compared:
        return (
            f"{target} is what the network is trained to tell apart, so weights depend on the compared labels; "
            "only retraining with permuted labels would test it (introspection.retrain)"
        )
    taken_out = sorted(question.compared & set(residualized))
    if taken_out:
        return f"the effect of {taken_out[0]} was taken out of the data (dataset.residualize)"
    return "" if permutations else "no permutations were recorded (introspection.permutations=0)"


def _permute(
    question: _Question,
    subjects: Units,
    groups: tuple[str, ...],
    config: IntrospectionConfig,
    target: str | None,
    group_by: list[str],
    residualized: Collection[str],
) -> PairPermutations | str:
    """The permuted partitions of one pair, the observed one first, or why there are none."""
    a, b = ([groups.index(part) for part in parts] for parts in question.parts)
    observed = observed_partition(subjects.group, a, b)
    for code in (1, 2):
        own = subjects.name[observed == code]
        if len(set(own)) < len(own):
            return "a subject has samples in several groups on one side of the pair, so labels cannot be permuted"
    # what else the groups are made of, and what a classifier learns, must stay with each subject
    names = dict.fromkeys([*config.strata, *group_by, *([target] if target else []), NUMBER_OF_SAMPLES, LEVERAGE])
    fixed = [name for name in names if name in subjects.columns and name not in question.compared]
    for name in DEFAULT_STRATA:
        left_out = name in subjects.columns and name not in (*fixed, *question.compared, *residualized)
        if left_out and (apart := labels_apart(observed, subjects.columns[name])) > UNEQUAL:
            return (
                f"the two groups differ in {name} (by {apart:.2f} SD), which introspection.strata="
                f"[{', '.join(config.strata)}] leaves out; add {name}, or take it out of the data (dataset.residualize)"
            )
    columns = {name: subjects.columns[name] for name in fixed}
    whose = subjects.name[observed > 0]
    if len(set(whose)) < len(whose):  # paired: a subject's two groups are exchanged, which flips a sign
        columns[PAIRED] = subjects.name
    return permute_labels(question.a, question.b, observed, columns, config.permutations, config.permutation_seed)
