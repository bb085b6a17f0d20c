"""Permuted partitions of subjects: the labels of two groups handed out anew within strata.

The unit is a subject, whose samples move together. NumPy only: recorders and whole experiments draw here.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autospec.store.permuted_pairs import FEWEST_PERMUTATIONS, Members, PairPermutations

FEWEST_SUBJECTS = 3
"""The spectrum of one or two subjects is theirs, not their group's."""
FEWEST_PARTITIONS = 1 + FEWEST_PERMUTATIONS
"""With fewer distinct ways to hand out the labels, the observed one included, no p could reach 0.05."""
MIXED = "a subject has samples in several groups, so subjects' labels cannot be permuted"
"""Why no pair can be tested."""
NUMBER_OF_SAMPLES = "number of samples"
"""What a stratum is called that no column makes: of subjects with equally many samples."""


def observed_partition(group: npt.NDArray[np.int64], a: Sequence[int], b: Sequence[int]) -> Members:
    """Return which side of a pair each subject is on.

    Args:
        group: (subject,) the index of each subject's disjoint group.
        a: The disjoint groups that the first side is made of.
        b: Those of the second.

    Returns:
        (subject,) 1 for the first side, 2 for the second, 0 for neither.
    """
    observed = np.zeros(len(group), dtype=np.int8)
    for code, parts in enumerate((a, b), start=1):
        observed[np.isin(group, list(parts))] = code
    return observed


def permute_labels(
    a: str,
    b: str,
    observed: Members,
    columns: Mapping[str, npt.NDArray[np.str_]],
    permutations: int,
    seed: int,
) -> PairPermutations | str:
    """Draw the permuted partitions of one pair.

    Args:
        a: The first group's name.
        b: The second group's name.
        observed: (subject,) from ``observed_partition``.
        columns: (subject,) values by name; labels are permuted among subjects that agree in all of them.
        permutations: How many partitions are drawn.
        seed: The seed; every pair draws from a stream of its own.

    Returns:
        The partitions, the observed one first, or why there can be none.
    """
    smallest = min(int((observed == code).sum()) for code in (1, 2))
    if smallest < FEWEST_SUBJECTS:
        return f"a group of {smallest} subjects; {FEWEST_SUBJECTS} are needed"
    strata = strata_of(np.flatnonzero(observed), columns)
    # in logarithms: the number itself overflows from about a thousand subjects on
    distinct = sum(_log_choices(observed[stratum]) for stratum in strata)
    if distinct < math.log(FEWEST_PARTITIONS):
        return (
            f"only {round(math.exp(distinct))} distinct permutations within {', '.join(columns) or 'the pair'}; "
            f"{FEWEST_PARTITIONS} are needed"
        )
    members = np.tile(observed, (1 + permutations, 1))
    random = stream(seed, f"{a} {b}")
    for row in members[1:]:
        for stratum in strata:
            row[stratum] = random.permutation(row[stratum])
    varying = tuple(name for name, values in columns.items() if len(set(values[observed > 0])) > 1)
    return PairPermutations(a, b, varying, members)


def pick_evenly(epochs: list[int], count: int) -> tuple[int, ...]:
    """Pick some epochs, evenly spaced, the first and the last among them.

    Args:
        epochs: The epochs to choose from.
        count: How many; all where there are fewer.

    Returns:
        The chosen epochs.
    """
    places = np.linspace(0, len(epochs) - 1, min(count, len(epochs))).round().astype(int)
    return tuple(epochs[place] for place in dict.fromkeys(places.tolist()))


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the random numbers of one question, so that others do not move it."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def strata_of(
    concerned: npt.NDArray[np.intp], columns: Mapping[str, npt.NDArray[np.str_]]
) -> list[npt.NDArray[np.int64]]:
    """Return the places of some subjects, stratum by stratum.

    Args:
        concerned: Their places.
        columns: (subject,) values by name; a stratum is of subjects that agree in all of them.
    """
    keys: dict[tuple[str, ...], list[int]] = {}
    for place in concerned:
        keys.setdefault(tuple(str(values[place]) for values in columns.values()), []).append(int(place))
    return [np.array(places) for places in keys.values()]


def _log_choices(labels: Members) -> float:
    """The logarithm of the number of ways to hand out the labels of a stratum."""
    a = int((labels == 1).sum())
    return math.lgamma(len(labels) + 1) - math.lgamma(a + 1) - math.lgamma(len(labels) - a + 1)
