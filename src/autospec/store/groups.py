"""Which groups of a file can be compared with one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from autospec.store.schema import ALL


def pairs_of(groups: Sequence[str], members: Mapping[str, frozenset[str]]) -> list[tuple[str, str]]:
    """Every pair of groups that share no person: disjoint groups with one another, margins with one another."""
    compared = [group for group in groups if group != ALL]
    margins = [group for group in compared if members[group] != frozenset({group})]
    single = [group for group in compared if group not in margins]
    among = [*combinations(single, 2), *combinations(margins, 2)]
    return [(a, b) for a, b in among if not members[a] & members[b]]
