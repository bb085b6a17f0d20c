"""The seven functional domains of the 53 NeuroMark components (Du et al. 2020, NeuroImage: Clinical 28:102375)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """A run of consecutive components of the template; ``first`` and ``last`` count from 1, both included."""

    name: str
    abbreviation: str
    first: int
    last: int

    @property
    def indices(self) -> range:
        """The components' positions in an array, from 0."""
        return range(self.first - 1, self.last)


DOMAINS = (
    Domain("subcortical", "SC", 1, 5),
    Domain("auditory", "AU", 6, 7),
    Domain("sensorimotor", "SM", 8, 16),
    Domain("visual", "VI", 17, 25),
    Domain("cognitive control", "CC", 26, 42),
    Domain("default mode", "DM", 43, 49),
    Domain("cerebellar", "CB", 50, 53),
)
"""In the template's order."""

N_COMPONENTS = DOMAINS[-1].last

COMPONENT_NAMES = tuple(f"{domain.abbreviation} {index + 1}" for domain in DOMAINS for index in domain.indices)
"""What a component is called in messages and figures: its domain and its number in the template, from 1."""
