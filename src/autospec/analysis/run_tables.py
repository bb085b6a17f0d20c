"""What tests and pictures take from one run: its spectra as a table, and its groups compared, each made once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pandas as pd

from autospec.analysis.comparison import Comparison, compare
from autospec.store.groups import Pair, disjoint_groups, pairs_of
from autospec.store.read import Spectra
from autospec.store.schema import GRADIENT


class RunTables:
    """The gradient spectra of a run as a table, and the comparisons of its groups.

    Attributes:
        spectra: The run; in memory where it is to be read once (``load_spectra``).
        groups: The disjoint groups.
        pairs: The pairs of groups to compare: those asked for, or all that share no subject.
        frame: The tidy table of gradient spectra (``Spectra.to_frame``).
    """

    def __init__(self, spectra: Spectra, pairs: Sequence[Pair] | None = None, leading: int | None = None) -> None:
        """Take the spectra of a run, as every picture of it needs them; its groups are compared when that is asked for.

        Args:
            spectra: The spectra.
            pairs: The pairs to compare; None takes all that share no subject.
            leading: So many of the largest singular values; None takes all.
        """
        self.spectra = spectra
        self.groups: tuple[str, ...] = disjoint_groups(spectra.group_names, spectra.members)
        every_pair = pairs_of(spectra.group_names, spectra.members)
        self.pairs: list[Pair] = every_pair if pairs is None else list(pairs)
        self.frame: pd.DataFrame = spectra.to_frame(GRADIENT, leading)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The gradient spectra of all ``pairs``, compared in every layer."""
        return list(compare(self.frame, self.pairs))

    def comparisons_of(self, pairs: Sequence[Pair]) -> list[Comparison]:
        """Return the comparisons of some pairs of groups, in every layer.

        Args:
            pairs: First and second group as they are to be compared, whether or not in the file's order.

        Returns:
            A comparison for each pair and layer.
        """
        # comparing is what costs: what was compared the other way round is turned, not compared again
        swapped = {(b, a) for a, b in self.pairs}
        others = [pair for pair in pairs if pair not in self.pairs and pair not in swapped]
        every = [*self.comparisons, *compare(self.frame, others)] if others else self.comparisons
        return [
            comparison if (comparison.a, comparison.b) == pair else comparison.swap()
            for pair in pairs
            for comparison in every
            if (comparison.a, comparison.b) in (pair, pair[::-1])
        ]
