"""Which groups of a file can be compared with one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from autospec.store.schema import ALL

Pair = tuple[str, str]


def pairs_of(groups: Sequence[str], members: Mapping[str, frozenset[str]]) -> list[Pair]:
    """List the pairs of groups that share no subject: disjoint groups with one another, margins with one another.

    Args:
        groups: Names of groups in the file's order, ``all`` among them.
        members: Of each group the disjoint groups that it is made of (``Spectra.members``).

    Returns:
        Pairs (first, second) in the file's order.
    """
    compared = [group for group in groups if group != ALL]
    margins = [group for group in compared if members[group] != frozenset({group})]
    single = [group for group in compared if group not in margins]
    among = [*combinations(single, 2), *combinations(margins, 2)]
    return [(a, b) for a, b in among if not members[a] & members[b]]


def disjoint_groups(groups: Sequence[str], members: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """List the groups that are neither the whole batch nor a margin of others.

    Args:
        groups: Names of groups in the file's order.
        members: As in ``pairs_of``.

    Returns:
        Names in the file's order.
    """
    return tuple(name for name in groups if name != ALL and members[name] == frozenset({name}))
