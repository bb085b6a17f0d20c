"""Permutations of three or more groups at once, and of a covariate over subjects; NumPy only, as ``relabelling``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autospec.analysis.joint_values import average_ranks
from autospec.analysis.nan_statistics import Floats
from autospec.analysis.relabelling import FEWEST_PARTITIONS, FEWEST_SUBJECTS, strata_of, stream
from autospec.errors import AutoSpecError
from autospec.store.permuted_pairs import CovariatePermutations, GroupsPermutations, Members

FEWEST_GROUPS = 3
MOST_GROUP_PERMUTATIONS = 199
"""So often all groups are permuted at most: each time every group is summed anew, over everybody."""
Columns = Mapping[str, npt.NDArray[np.str_]]


def permute_groups(
    groups: Sequence[str], observed: Members, columns: Columns, permutations: int, seed: int
) -> GroupsPermutations | str:
    """Draw permuted partitions of all groups at once.

    Args:
        groups: The names of three or more groups.
        observed: (subject,) 1 for the first group, 2 for the second and so on, 0 for none.
        columns: (subject,) values by name; labels are permuted among subjects that agree in all of them.
        permutations: How many partitions are drawn, at most ``MOST_GROUP_PERMUTATIONS``.
        seed: The seed.

    Returns:
        The partitions, the observed one first, or why there can be none.
    """
    counts = np.bincount(observed, minlength=len(groups) + 1)[1:]
    if counts.min() < FEWEST_SUBJECTS:
        place = int(counts.argmin())
        return f"{groups[place]} has {counts[place]} subjects; {FEWEST_SUBJECTS} are needed"
    places = strata_of(np.flatnonzero(observed), columns)
    if few := _too_few([observed[stratum] for stratum in places], columns):
        return few
    members = np.tile(observed, (1 + min(permutations, MOST_GROUP_PERMUTATIONS), 1))
    random = stream(seed, " ".join(groups))
    for row in members[1:]:
        for stratum in places:
            row[stratum] = random.permutation(row[stratum])
    return GroupsPermutations(tuple(groups), _varying(columns, observed > 0), members)


def permute_covariate(
    name: str, values: Floats, columns: Columns, permutations: int, seed: int
) -> CovariatePermutations | str:
    """Hand the values of a covariate out to subjects anew.

    Args:
        name: The covariate's name.
        values: (subject,) finite numbers.
        columns: (subject,) values by name; those of the covariate are permuted among subjects that agree in all.
        permutations: How many orders are drawn.
        seed: The seed.

    Returns:
        The ranks, the observed ones first, or why there can be none.

    Raises:
        AutoSpecError: All subjects have one value.
    """
    if len(np.unique(values)) < 2:
        raise AutoSpecError(f"covariate {name!r} is {values[0]:g} for every subject: nothing can go with it")
    ranks = average_ranks(values[:, None])[:, 0]
    places = strata_of(np.arange(len(values)), columns)
    if few := _too_few([ranks[stratum] for stratum in places], columns):
        return few
    drawn = np.tile(ranks, (1 + permutations, 1))
    random = stream(seed, name)
    for row in drawn[1:]:
        for stratum in places:
            row[stratum] = random.permutation(row[stratum])
    return CovariatePermutations(name, _varying(columns, np.ones(len(values), dtype=bool)), drawn)


def check_covariate(name: str, values: Mapping[str, float] | Mapping[str | int, float]) -> None:
    """Refuse a covariate that has no number for a subject.

    Args:
        name: The covariate's name.
        values: Of every subject.

    Raises:
        AutoSpecError: Names the first such subject.
    """
    for subject, value in values.items():
        if not math.isfinite(value):
            raise AutoSpecError(
                f"covariate {name!r} is {value} for subject {subject!r}: every subject needs a finite number; leave "
                "out those without"
            )


def _too_few(strata: Sequence[npt.NDArray], columns: Columns) -> str:
    """Why there are too few distinct orders of what subjects have, within strata; empty where there are enough."""
    # in logarithms: the number itself overflows from about 170 subjects on
    distinct = sum(_log_orders(stratum) for stratum in strata)
    if distinct >= math.log(FEWEST_PARTITIONS):
        return ""
    within = ", ".join(columns) or "all subjects"
    return f"only {round(math.exp(distinct))} distinct permutations within {within}; {FEWEST_PARTITIONS} are needed"


def _log_orders(labels: npt.NDArray) -> float:
    """The logarithm of the number of distinct orders."""
    _, counts = np.unique(labels, return_counts=True)
    return math.lgamma(len(labels) + 1) - sum(math.lgamma(count + 1) for count in counts.tolist())


def _varying(columns: Columns, concerned: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(name for name, values in columns.items() if len(set(values[concerned])) > 1)
