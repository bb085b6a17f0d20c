"""How many people a group needs before anything of it alone leaves its site."""

from __future__ import annotations

from collections.abc import Sequence

from autospec.errors import AutoSpecError

OTHER = "other"
"""The group of a site's people whose own group is not told apart, or who are in none."""


def check_people(sites: Sequence[str], groups: Sequence[str], people: Sequence[Sequence[int]], min_group: int) -> None:
    """AutoSpecError for counts that do not fit the groups, and for a site with too few people.

    Args:
        sites: their names.
        groups: the names of groups within sites; none for whole sites.
        people: of each site the number of people, or of those in each group.
        min_group: how many a site must have.
    """
    for site, sizes in zip(sites, people, strict=True):
        if len(sizes) != max(len(groups), 1):
            raise AutoSpecError(
                f"people of site {site!r}: {len(sizes)} numbers, but there are {len(groups)} groups "
                f"({', '.join(groups)})"
            )
        if sum(sizes) < min_group:
            raise AutoSpecError(
                f"site {site!r} has {sum(sizes)} people, fewer than min_group={min_group}: what it sends would tell of "
                "single ones; let it join another site"
            )


def withheld(sizes: Sequence[int], min_group: int) -> list[bool]:
    """Which groups of a site are not told apart: small ones, and as many more as it takes to hide these.

    What is withheld is what remains of the site's total, so it must itself be no smaller than ``min_group``.

    Example:
        >>> withheld([40, 12, 20], 15), withheld([40, 30], 15), withheld([40, 12], 15)
        ([False, True, True], [False, False], [True, True])
    """
    hidden = [size < min_group for size in sizes]
    while any(hidden) and not all(hidden) and sum(s for s, h in zip(sizes, hidden, strict=True) if h) < min_group:
        smallest = min((size, place) for place, (size, h) in enumerate(zip(sizes, hidden, strict=True)) if not h)[1]
        hidden[smallest] = True
    return hidden


def recorded_groups(sites: Sequence[str], groups: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The names of the disjoint groups that are recorded, and the margins: each site, each group over sites."""
    if not groups:
        return list(sites), {}
    own = [*groups, OTHER]
    margins = {site: [f"{site}/{group}" for group in own] for site in sites}
    margins |= {group: [f"{site}/{group}" for site in sites] for group in groups}
    return [f"{site}/{group}" for site in sites for group in own], margins
