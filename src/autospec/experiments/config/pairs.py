"""Which groups are compared with one another; standard library only."""

from __future__ import annotations

from collections.abc import Sequence

from autospec.errors import AutoSpecError
from autospec.store.schema import ALL


def pairs_in_front(pairs: Sequence[Sequence[str]], groups: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The pairs that panels G and H draw: ``figure.pairs``, or else the first of a run's groups and the last.

    AutoSpecError where there are fewer than two groups, or a pair names another.
    """
    groups = [group for group in groups if group != ALL]
    if len(groups) < 2:
        raise AutoSpecError(
            f"panels G and H compare two groups, but there is {len(groups)} ({', '.join(groups)}); "
            "the keys of the data set say which there are"
        )
    for name in {name for pair in pairs for name in pair} - set(groups):
        raise AutoSpecError(f"figure.pairs: {name!r} is no group of the run; there are {', '.join(groups)}")
    return tuple((pair[0], pair[1]) for pair in pairs) or ((groups[0], groups[-1]),)


def check_permutation_pairs(pairs: Sequence[Sequence[str]], groups: Sequence[str]) -> None:
    """AutoSpecError for a pair of ``introspection.permutation_pairs`` that names no group."""
    for name in (name for pair in pairs for name in pair):
        if name not in groups:
            raise AutoSpecError(
                f"introspection.permutation_pairs: {name!r} is no group; there are {', '.join(groups)} "
                f"(in figures they follow figure.pairs=[[{groups[0]},{groups[-1]}]])"
            )
