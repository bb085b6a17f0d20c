"""Studies: cohorts, networks that learn from them, and every test of their groups; a block of studies at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np
import pandas as pd
import torch

from autospec.analysis.joint_values import dispersions, rank_correlations
from autospec.experiments.config.schema import CohortConfig, ExperimentConfig, Task
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.permutation_design import permutation_design
from autospec.experiments.retraining.design import retraining_design
from autospec.experiments.retraining.retrained import retrain
from autospec.experiments.validation.block_ratios import BlockSides, group_spectra
from autospec.experiments.validation.dealt import deal_cohorts
from autospec.experiments.validation.kinds import (
    EPOCHS,
    EVERY,
    REPEATED,
    RETRAINED,
    RETRAININGS,
    SEXES,
    SHUFFLED,
    SPREAD,
    VISITS,
    Condition,
)
from autospec.experiments.validation.rows import (
    STUDY_COLUMNS,
    PaperValues,
    Row,
    of_inputs,
    of_paper,
    of_permutations,
)
from autospec.experiments.validation.side_by_side import LAYERS, train_side_by_side
from autospec.experiments.validation.situations import covariates_taken_out, several_samples, two_visits
from autospec.spectra.factors import GradientFactors
from autospec.spectra.subject_sums import Ratios, SubjectSums
from autospec.store.permutations import JointValues, PermutationRatios
from autospec.store.permuted_pairs import CovariatePermutations, GroupsPermutations, PermutationDesign
from autospec.store.schema import JOINT_VALUES, OMNIBUS, PERMUTATION_RATIOS

SITUATIONS = {
    SPREAD: covariates_taken_out,
    REPEATED: several_samples,
    SEXES: lambda data, random: data,
    VISITS: two_visits,
}
"""Data of which labels can be exchanged within strata alone."""
RECORDED = [*range(0, EPOCHS, EVERY), EPOCHS - 1]
OfLayers = dict[str, dict[str, list[np.ndarray]]]
RATIO_OF = {"log_ratio": "spectrum", "log_norm": "norm", "log_effective_rank": "effective_rank"}
"""What the file calls an array, and what ``Ratios`` does, where the two differ."""


def studies(condition: Condition, base: ExperimentConfig, seeds: Sequence[int]) -> pd.DataFrame:
    """Make a block of studies, whose subjects are simulated at once and whose networks are trained side by side.

    Args:
        condition: The kind of study.
        base: The configuration that it is derived from.
        seeds: Of each study the seed of its network and permutations; the first is that of the subjects as well, so
            that other blocks are other studies.

    Returns:
        A row for each study and test that a reader might rely on, with the columns ``STUDY_COLUMNS``; a study whose
        labels cannot be exchanged has no p.
    """
    configs = [condition.config(base, seed) for seed in seeds]
    assert isinstance(configs[0].dataset, CohortConfig)
    cohorts = deal_cohorts(configs[0].dataset, len(seeds))
    data = [_prepared(one, condition, seed) for one, seed in zip(cohorts, seeds, strict=True)]
    if condition.null == RETRAINED:
        rows = [row for pair in zip(configs, data, strict=True) for row in _retrained_rows(*pair)]
    else:
        designs = [_design(config, one) for config, one in zip(configs, data, strict=True)]
        can_be = [bool(design.pairs) for design in designs]
        tested = _tested_rows(
            list(compress(configs, can_be)), list(compress(data, can_be)), list(compress(designs, can_be)), condition
        )
        rows = [row for of_study in tested for row in of_study]
        rows += [(test, stage, np.nan) for test, stage, _ in tested[0]] * (len(data) - len(tested))
    return pd.DataFrame(rows, columns=list(STUDY_COLUMNS))


def _tested_rows(
    configs: Sequence[ExperimentConfig],
    data: Sequence[Dataset],
    designs: Sequence[PermutationDesign],
    condition: Condition,
) -> list[list[Row]]:
    """The rows of each study, whose labels can be exchanged."""
    rows = []
    for one, design, sums in zip(data, designs, _train(configs, data, designs, condition), strict=True):
        of_study = [*of_permutations(sums.permutations(design)), *of_inputs(one, design)]
        rows.append(of_study + (list(of_paper(sums.paper)) if condition.has_paper else []))
    return rows


def _prepared(data: Dataset, condition: Condition, seed: int) -> Dataset:
    """A cohort as the kind of study has it."""
    if condition.null in SITUATIONS:
        return SITUATIONS[condition.null](data, np.random.default_rng([seed, 1]))
    if condition.null != SHUFFLED:
        return data
    random = np.random.default_rng(seed)
    # each label within the strata of its test: the sex within diagnosis, the diagnosis within sex
    strata = np.array(data.columns["diagnosis" if condition.task is Task.classification else "sex"])
    group = data.group.copy()
    for stratum in np.unique(strata):
        group[strata == stratum] = random.permutation(group[strata == stratum])
    return replace(data, group=group)


def _design(config: ExperimentConfig, data: Dataset) -> PermutationDesign:
    target = config.dataset.target if config.task is Task.classification else None
    return permutation_design(data, config.introspection, config.dataset.group_by, target, RECORDED)


def _retrained_rows(config: ExperimentConfig, data: Dataset) -> Iterator[tuple[str, str, float]]:
    yield from of_permutations(retrain(config, RETRAININGS, data))
    yield from of_inputs(data, retraining_design(config, data, RETRAININGS).design)


@dataclass
class StudySums:
    """What one study's network gave, epoch by epoch.

    Attributes:
        ratios: By layer the ratios of each permuted epoch, pair by pair.
        losses: Of each permuted epoch the ratios of mean losses, pair by pair.
        paper: The values that the paper's tests are made of, of the first layer.
        omnibus: By layer and name what all groups at once give at each permuted epoch.
        covariates: By layer likewise what a covariate gives.
    """

    ratios: dict[str, list[list[Ratios]]] = field(default_factory=lambda: {layer: [] for layer in LAYERS})
    losses: list[np.ndarray] = field(default_factory=list)
    paper: PaperValues = field(default_factory=PaperValues)
    omnibus: OfLayers = field(default_factory=lambda: {layer: {} for layer in LAYERS})
    covariates: OfLayers = field(default_factory=lambda: {layer: {} for layer in LAYERS})

    def add_jointly(self, factors: Mapping[str, GradientFactors], design: PermutationDesign) -> None:
        """Take what all groups at once and covariates give: as ``recording.permutation_sums`` does."""
        weight = torch.from_numpy(np.bincount(design.subject) / len(design.subject))
        for layer, own in factors.items():
            sums = SubjectSums((own.adjoint.shape[-1], own.activation.shape[-1]), design.subjects)
            sums.add(own, torch.from_numpy(design.subject))
            if (groups := design.omnibus) is not None:
                deviations = sums.deviations(torch.from_numpy(groups.members), len(groups.groups), weight).numpy()
                for name, values in zip(JOINT_VALUES[OMNIBUS], dispersions(deviations), strict=True):
                    self.omnibus[layer].setdefault(name, []).append(values.astype(np.float32))
            for covariate in design.covariates:
                added = sums.contributions(torch.arange(design.subjects), weight).numpy()
                correlations = rank_correlations(covariate.ranks, added)[None].astype(np.float32)
                self.covariates[layer].setdefault("rank_correlation", []).append(correlations)

    def permutations(self, design: PermutationDesign) -> PermutationRatios:
        """Return what a file would hold of the permuted pairs."""
        arrays = {
            layer: {
                name: np.stack([_stacked(of_epoch, RATIO_OF.get(name, name)) for of_epoch in epochs])
                for name in PERMUTATION_RATIOS
            }
            for layer, epochs in self.ratios.items()
        }
        pairs = tuple((pair.a, pair.b) for pair in design.pairs)
        subjects = np.array([[(pair.members[0] == code).sum() for code in (1, 2)] for pair in design.pairs])
        strata = tuple(", ".join(pair.strata) for pair in design.pairs)
        epochs = np.array(design.epochs)
        loss = np.stack(self.losses).astype(np.float32)
        groups = None if design.omnibus is None else _joint(design.omnibus.groups, (design.omnibus,), self.omnibus)
        names = tuple(one.name for one in design.covariates)
        covariates = _joint(names, design.covariates, self.covariates) if names else None
        joint = {"omnibus": groups, "covariates": covariates}
        return PermutationRatios(
            epochs, pairs, subjects, strata, design.refused, design.digest(), arrays, loss, **joint
        )


def _joint(
    names: tuple[str, ...],
    drawn: Sequence[GroupsPermutations | CovariatePermutations],
    of_layers: OfLayers,
) -> JointValues:
    strata = tuple(", ".join(one.strata) for one in drawn)
    values = {layer: {name: np.stack(epochs) for name, epochs in arrays.items()} for layer, arrays in of_layers.items()}
    return JointValues(names, strata, {}, values)


def _stacked(of_pairs: Sequence[Ratios], name: str) -> np.ndarray:
    return torch.stack([getattr(one, name) for one in of_pairs]).numpy().astype(np.float32)


def _train(
    configs: Sequence[ExperimentConfig],
    data: Sequence[Dataset],
    designs: Sequence[PermutationDesign],
    condition: Condition,
) -> list[StudySums]:
    """What the network of every study gave."""
    sums = [StudySums() for _ in data]
    sides = BlockSides([[pair.members[:, design.subject] for pair in design.pairs] for design in designs])
    groups = _groups_in_front(data, condition, sides.members.shape[3])
    is_joint = designs[0].omnibus is not None or bool(designs[0].covariates)
    for snapshot in train_side_by_side(configs, data, RECORDED):
        if condition.has_paper:
            raw, floor = group_spectra(snapshot, LAYERS[0], groups)
            weight = (groups.sum(2) / snapshot.counted.sum(1, keepdim=True)).numpy()
            for study, own in enumerate(sums):
                own.paper.add(raw[study], floor[study], weight[study])
        if snapshot.epoch not in designs[0].epochs:
            continue
        of_layers, losses = {layer: sides.ratios(snapshot, layer) for layer in LAYERS}, sides.losses(snapshot).numpy()
        for study, own in enumerate(sums):
            for layer, of_pairs in of_layers.items():
                own.ratios[layer].append([_of_study(one, study) for one in of_pairs])
            own.losses.append(losses[:, study])
            if is_joint:
                own.add_jointly(snapshot.factors(study), designs[study])
    return sums


def _groups_in_front(data: Sequence[Dataset], condition: Condition, samples: int) -> torch.Tensor:
    """(study, group, n): who is in the groups of the first pair."""
    membership = torch.zeros(len(data), 2, samples, dtype=torch.float64)
    for study, one in enumerate(data):
        parts = {**{name: (name,) for name in one.groups}, **one.margins}
        for place, name in enumerate(condition.pairs[0]):
            codes = [one.groups.index(part) for part in parts[name]]
            membership[study, place, : len(one.group)] = torch.from_numpy(np.isin(one.group, codes))
    return membership


def _of_study(ratios: Ratios, study: int) -> Ratios:
    return Ratios(*(values[study] for values in vars(ratios).values()))
