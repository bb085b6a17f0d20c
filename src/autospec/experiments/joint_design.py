"""Whether all groups of a run can be tested at once, and its covariates, and the permutations of either."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from autospec.analysis.joint_relabelling import FEWEST_GROUPS, check_covariate, permute_covariate, permute_groups
from autospec.analysis.relabelling import NUMBER_OF_SAMPLES
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import IntrospectionConfig
from autospec.experiments.datasets.dataset import LEVERAGE, Dataset
from autospec.store.permuted_pairs import CovariatePermutations, GroupsPermutations, Members

DEFAULT_STRATA = ("sex", "site")
"""Columns within which labels are permuted, as far as a data set has them."""
UNEQUAL = 0.1
"""Shares of a label that are further apart, in SD, make two groups differ in it."""
PAIRED = "subject"
"""What strata are called that are the groups of one subject."""
SEVERAL_GROUPS = "subjects have samples in several groups (visits), so a covariate cannot be permuted over them"


@dataclass(frozen=True)
class Units:
    """The subjects who are trained on: their name, the index of their group, and the columns of their strata.

    Of a subject with samples in several groups (two visits) each group's samples are a unit of their own, and ``name``
    says whose. Subjects of whom there are more samples pull harder, so that only those with equally many can be
    exchanged: where their number varies, it is a column.
    """

    name: npt.NDArray[np.str_]
    group: npt.NDArray[np.int64]
    columns: Mapping[str, npt.NDArray[np.str_]]


@dataclass(frozen=True)
class JointQuestions:
    """What is asked of a run beside its pairs: its data, their subjects, and what decides who can be exchanged.

    Attributes:
        data: The samples.
        units: Their subjects.
        config: The number and seed of the permutations, the strata, and what is asked for.
        group_by: The columns that the groups are made of.
        target: The column that a classifier learns; None for an autoencoder.
        residualized: The columns whose effect was taken out of the data.
    """

    data: Dataset
    units: Units
    config: IntrospectionConfig
    group_by: list[str]
    target: str | None
    residualized: Collection[str]

    def permute(self) -> dict[str, Any]:
        """Permute all groups at once, where there are three or more, and the covariates that are asked for.

        Returns:
            The fields of a ``PermutationDesign`` that say of both.

        Raises:
            AutoSpecError: Fewer than three groups are to be tested at once, or a covariate is no column, no number, the
                same for all, or not one for each subject.
        """
        groups, config = self.data.groups, self.config
        fields: dict[str, Any] = {"refused_omnibus": {}, "refused_covariates": {}, "covariates": ()}
        if config.omnibus and len(groups) < FEWEST_GROUPS:
            raise AutoSpecError(
                f"introspection.omnibus=true: there are {len(groups)} groups ({', '.join(groups)}), and "
                f"{FEWEST_GROUPS} or more are tested at once; two are a pair, which has a test of its own"
            )
        if not config.permutations:
            return fields
        if config.omnibus or (config.omnibus is None and len(groups) >= FEWEST_GROUPS):
            together = self._permute_groups()
            if isinstance(together, str):
                fields["refused_omnibus"] = {", ".join(groups): together}
            else:
                fields["omnibus"] = together
        for name in config.covariates:
            covariate = self._permute_covariate(name)
            if isinstance(covariate, str):
                fields["refused_covariates"][name] = covariate
            else:
                fields["covariates"] += (covariate,)
        return fields

    def _permute_groups(self) -> GroupsPermutations | str:
        """The permuted partitions of all groups, the observed one first, or why there are none."""
        units, config = self.units, self.config
        if self.target in self.group_by:
            return (
                f"{self.target} is what the network is trained to tell apart, so weights depend on the compared "
                "labels; its pairs are tested by networks trained anew (introspection.retrain)"
            )
        taken_out = sorted(set(self.group_by) & set(self.residualized))
        if taken_out:
            return f"the effect of {taken_out[0]} was taken out of the data (dataset.residualize)"
        observed = (units.group + 1).astype(np.int8)
        fixed = self._fixed_columns([*config.strata, self.target], self.group_by)
        if unequal := self._unequal(observed, fixed):
            return unequal
        concerned = units.name[observed > 0]
        if len(set(concerned)) < len(concerned):
            fixed[PAIRED] = units.name
        return permute_groups(self.data.groups, observed, fixed, config.permutations, config.permutation_seed)

    def _unequal(self, observed: Members, fixed: Collection[str]) -> str:
        """Why groups that differ in a label that strata leave out are not tested; empty where none do."""
        units, groups = self.units, self.data.groups
        for name in DEFAULT_STRATA:
            if name not in units.columns or name in (*fixed, *self.group_by, *self.residualized):
                continue
            for a, b in combinations(range(1, len(groups) + 1), 2):
                pair = np.where(observed == a, 1, np.where(observed == b, 2, 0)).astype(np.int8)
                if (apart := labels_apart(pair, units.columns[name])) > UNEQUAL:
                    return left_out_of_strata(groups[a - 1], groups[b - 1], name, apart, self.config.strata)
        return ""

    def _permute_covariate(self, name: str) -> CovariatePermutations | str:
        """The permuted ranks of one covariate, the observed ones first, or why there are none."""
        units, config = self.units, self.config
        if name in self.residualized:
            return f"the effect of {name} was taken out of the data (dataset.residualize)"
        of_subject = covariate_by_subject(name, self.data)
        check_covariate(name, of_subject)
        if len(set(units.name)) < len(units.name):
            return SEVERAL_GROUPS
        values = np.array([of_subject[str(subject)] for subject in units.name])
        # within groups and classes, so that what goes with these is not taken for what goes with the covariate
        fixed = self._fixed_columns([*config.strata, self.target], [name])
        fixed["group"] = units.group.astype(str)
        return permute_covariate(name, values, fixed, config.permutations, config.permutation_seed)

    def _fixed_columns(self, names: Iterable[str | None], compared: Collection[str]) -> dict[str, npt.NDArray[np.str_]]:
        """The columns that stay with each subject, but for what is compared."""
        columns = self.units.columns
        wanted = dict.fromkeys([*(name for name in names if name), NUMBER_OF_SAMPLES, LEVERAGE])
        return {name: columns[name] for name in wanted if name in columns and name not in compared}


def covariate_by_subject(name: str, data: Dataset) -> dict[str, float]:
    """Return the number of every training subject.

    Args:
        name: A column of the data.
        data: The samples.

    Raises:
        AutoSpecError: There is no such column, or a subject has no number or several.
    """
    if name not in data.columns:
        there = ", ".join(data.columns) or "none"
        raise AutoSpecError(f"introspection.covariates: the data have no column {name!r}; there are {there}")
    value_of: dict[str, float] = {}
    for subject, text, trained in zip(data.subjects, data.columns[name], data.training, strict=True):
        if not trained:
            continue
        try:
            value = float(text)
        except ValueError as error:
            raise AutoSpecError(
                f"introspection.covariates: {name!r} is {text!r} for subject {subject!r}: a number is needed; labels "
                "are groups (dataset.group_by)"
            ) from error
        before = value_of.setdefault(subject, value)
        if before != value and not (math.isnan(before) and math.isnan(value)):
            raise AutoSpecError(
                f"introspection.covariates: {name!r} has two values for subject {subject!r}, {before:g} and {value:g}; "
                "it is permuted over subjects, so each has one, not one a sample"
            )
    return value_of


def labels_apart(observed: Members, labels: npt.NDArray[np.str_]) -> float:
    """Return how far the shares of a label are apart in two groups, at most, in SD of the label over both.

    Args:
        observed: (subject,) 1 for the first group, 2 for the second, 0 for neither.
        labels: (subject,).
    """
    largest = 0.0
    for label in np.unique(labels[observed > 0]):
        share = float((labels[observed > 0] == label).mean())
        a, b = (float((labels[observed == code] == label).mean()) for code in (1, 2))
        if 0 < share < 1:
            largest = max(largest, abs(a - b) / math.sqrt(share * (1 - share)))
    return largest


def left_out_of_strata(a: str, b: str, name: str, apart: float, strata: Collection[str]) -> str:
    """Say why groups that differ in a label are not tested where strata leave it out."""
    return (
        f"{a} and {b} differ in {name} (by {apart:.2f} SD), which introspection.strata=[{', '.join(strata)}] leaves "
        f"out; add {name}, or take it out of the data (dataset.residualize)"
    )
