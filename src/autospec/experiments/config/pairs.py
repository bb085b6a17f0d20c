"""Which groups are compared with one another: the one place where a configuration's pairs are checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import (
    CohortConfig,
    DatasetConfig,
    ExperimentConfig,
    MnistConfig,
    Shows,
    SinusoidConfig,
)
from autospec.store.schema import ALL

Pairs = Sequence[Sequence[str]]


def pair_mistakes(key: str, pairs: Pairs) -> Iterator[str]:
    """Yield a line for each entry of a configuration's pairs that is no pair of two groups."""
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1]:
            yield f"{key}: {pair} is not a pair of two groups"


def group_names(config: DatasetConfig) -> list[str] | None:
    """The names that groups and margins may have by the configuration alone.

    Args:
        config: The data set's configuration.

    Returns:
        The names; None where the data's values name them.

    Example:
        >>> group_names(MnistConfig(digits=[0, 3]))
        ['0', '3']
    """
    if isinstance(config, MnistConfig):
        return [str(digit) for digit in config.digits]
    if isinstance(config, SinusoidConfig):
        return [str(kind) for kind in config.classes]
    if not isinstance(config, CohortConfig) or any(column not in config.labels for column in config.group_by):
        return None
    labels = [list(config.labels[column]) for column in config.group_by]
    crossed = ["/".join(cell) for cell in product(*labels)]
    return list(dict.fromkeys([*crossed, *(label for names in labels for label in names)]))


def check_pairs(config: ExperimentConfig, groups: Sequence[str] | None = None) -> None:
    """Check every pair that a run of this configuration needs against the groups that its data have.

    Called as soon as the groups' names are there: before the data are loaded where the configuration tells the names,
    and after it where only the data do.

    Args:
        config: a configuration whose values are checked.
        groups: names of the groups and margins, with or without ``all``; None before the data are loaded.

    Raises:
        AutoSpecError: for fewer than two groups where groups are compared, or a pair of another group.
    """
    if groups is None:
        groups = group_names(config.dataset)
        if groups is None:
            return
    if config.panel.shows is Shows.differences:
        pairs_in_front(config.figure.pairs, groups)
    names = [group for group in groups if group != ALL]
    if config.introspection.permutations and len(names) > 1:  # of one group nothing is compared
        follow = f" (in figures they follow figure.pairs=[[{names[0]},{names[-1]}]])"
        missing = _missing(config.introspection.permutation_pairs or (), names)
        if missing:
            raise AutoSpecError(
                f"introspection.permutation_pairs: {missing[0]!r} is no group; there are {', '.join(names)}{follow}"
            )


def pairs_in_front(pairs: Pairs, groups: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The pairs that panels G and H draw: ``figure.pairs``, or else the first of a run's groups and the last.

    Args:
        pairs: ``figure.pairs``, may be empty.
        groups: names of the groups and margins, with or without ``all``.

    Returns:
        The pairs, each (one group, the other).

    Raises:
        AutoSpecError: for fewer than two groups, or a pair of another group.
    """
    names = [group for group in groups if group != ALL]
    if len(names) < 2:
        raise AutoSpecError(
            f"panels G and H compare two groups, but there is {len(names)} ({', '.join(names)}); "
            "the keys of the data set say which there are"
        )
    missing = _missing(pairs, names)
    if missing:
        raise AutoSpecError(f"figure.pairs: {missing[0]!r} is no group of the run; there are {', '.join(names)}")
    return tuple((pair[0], pair[1]) for pair in pairs) or ((names[0], names[-1]),)


def _missing(pairs: Pairs, names: Sequence[str]) -> list[str]:
    """The members of pairs that are no group, in their order."""
    return [name for pair in pairs for name in pair if name not in names]
