"""The permutation tests of one file, as ``Spectra.tests`` gives them."""

from __future__ import annotations

import pandas as pd

from autospec.analysis.permutation import permutation_tests
from autospec.errors import AutoSpecError
from autospec.store.groups import Pair, pairs_of
from autospec.store.read import Spectra


def permutation_table(spectra: Spectra, a: str | None, b: str | None, finer: bool) -> pd.DataFrame:
    """Test groups against each other, in every layer of a file.

    Args:
        spectra: The spectra of a run.
        a: The first group of a pair whose rows alone are wanted; None takes every pair.
        b: The second.
        finer: Whether epochs and indices have exploratory rows of their own.

    Returns:
        A row per test with the columns of ``analysis.permutation.COLUMNS``; ``note`` says why a p is missing. The
        family of ``p_family`` is every layer and pair of the file, whatever is asked for.

    Raises:
        AutoSpecError: There is no such pair.
    """
    pairs = pairs_of(spectra.group_names, spectra.members)
    wanted = _one_pair(spectra, pairs, a, b)
    table = permutation_tests([spectra.permutations], spectra.layers, pairs, finer)
    if wanted is None:
        return table
    chosen = (table["group_a"] == wanted[0]) & (table["group_b"] == wanted[1])
    return table[chosen].reset_index(drop=True)


def _one_pair(spectra: Spectra, pairs: list[Pair], a: str | None, b: str | None) -> Pair | None:
    """The pair as the file has it, in either order."""
    if a is None and b is None:
        return None
    for pair in ((a, b), (b, a)):
        if pair in pairs:
            return pair
    there = ", ".join(f"{first} and {second}" for first, second in pairs) or "none"
    raise AutoSpecError(
        f"{spectra.where} has no pair {a!r} and {b!r} of groups that share no sample; there are {there}"
    )
