"""How alike the groups of a cohort are in what is not being compared: age, head size, motion, sex, site.

Standardised differences: Austin 2009, Stat Med 28:3083. Above 0.25 regression cannot be trusted to adjust for the
covariate (Stuart 2010, Stat Sci 25:1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account
from autospec.cohorts.phenotype import NUMERIC
from autospec.cohorts.tables import is_missing

LARGE = 0.25
LABELS = ("sex", "site")

Values = npt.NDArray[np.float64]
Members = Mapping[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Difference:
    """How far two groups are apart in a covariate, or in the share of one of its labels (``sex F``)."""

    covariate: str
    one: str
    other: str
    standardised: float

    @property
    def large(self) -> bool:
        """Whether it is too large for regression to be trusted; what cannot be had counts as none."""
        return abs(self.standardised) > LARGE

    def record(self) -> dict[str, str | float | bool | None]:
        """As a file keeps it: what is no number (NaN, infinite) is None there.

        Returns:
            The fields by name.
        """
        value = self.standardised if np.isfinite(self.standardised) else None
        return {**asdict(self), "standardised": value, "large": self.large}


def note_balance(
    subjects: pd.DataFrame, members: Members, group_by: Sequence[str], account: Account
) -> tuple[Difference, ...]:
    """Say of every covariate what it is in each group, and warn where two neighbouring groups differ.

    Neighbours differ in one of the ``group_by`` columns alone; a covariate that the groups are made by is left out.

    Args:
        subjects: The phenotype table.
        members: (n,) Who belongs to each group.
        group_by: The columns that groups are made by.
        account: Takes the lines.

    Returns:
        All differences.
    """
    differences: list[Difference] = []
    pairs = list(_neighbours(list(members)))
    for name in (*NUMERIC, *LABELS):
        if name not in subjects.columns or name in group_by:
            continue
        columns = _columns(subjects[name], name)
        if not columns:
            continue
        account.note(f"{name}: {_summary(columns, subjects[name], members)}")
        for one, other in pairs:
            of_pair = [
                Difference(label, one, other, standardised_difference(values[members[one]], values[members[other]]))
                for label, values in columns.items()
            ]
            differences += of_pair
            worst = max(of_pair, key=lambda pair: -1.0 if np.isnan(pair.standardised) else abs(pair.standardised))
            if worst.large:
                account.warn(
                    f"{worst.covariate} is not balanced: standardised difference of {one} and {other} "
                    f"{worst.standardised:+.2f}, more than {LARGE:g} apart"
                )
    return tuple(differences)


def standardised_difference(one: Values, other: Values) -> float:
    """(mean − mean) / √((var + var) / 2), of the values that are known (Austin 2009).

    Args:
        one: Values of one group.
        other: Values of the other.

    Returns:
        The difference; NaN where a side has fewer than two values.
    """
    one, other = one[np.isfinite(one)], other[np.isfinite(other)]
    if min(len(one), len(other)) < 2:
        return float("nan")
    difference = one.mean() - other.mean()
    spread = np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2)
    if spread == 0:
        return float(np.sign(difference) * np.inf) if difference else 0.0
    return float(difference / spread)


def _columns(values: pd.Series, name: str) -> dict[str, Values]:
    """A covariate as columns of numbers: itself, or one of zeros and ones for each label that occurs."""
    if name in NUMERIC:
        numbers = values.to_numpy(dtype=np.float64)
        return {name: numbers} if np.isfinite(numbers).any() else {}
    texts = [str(text) for text in values]
    is_known = np.array([not is_missing(text) for text in texts])
    labels = sorted({text for text in texts if not is_missing(text)})
    if len(labels) < 2:
        return {}
    # the second of two labels says nothing that the first does not
    chosen = labels[:1] if len(labels) == 2 else labels
    return {f"{name} {label}": np.where(is_known, np.array(texts) == label, np.nan) for label in chosen}


def _summary(columns: Mapping[str, Values], values: pd.Series, members: Members) -> str:
    return ", ".join(f"{group} {_of_group(columns, values, chosen)}" for group, chosen in members.items())


def _of_group(columns: Mapping[str, Values], values: pd.Series, chosen: npt.NDArray[np.bool_]) -> str:
    """Mean ± SD of a number, or how many have each label."""
    if len(columns) > 1 or next(iter(columns)) != values.name:
        counts = values[chosen].value_counts().sort_index()
        return " / ".join(f"{label or 'missing'} {count}" for label, count in counts.items())
    numbers = next(iter(columns.values()))[chosen]
    missing = int((~np.isfinite(numbers)).sum())
    numbers = numbers[np.isfinite(numbers)]
    spread = f" ± {numbers.std(ddof=1):.4g}" if len(numbers) > 1 else ""
    text = f"{numbers.mean():.4g}{spread}" if len(numbers) else "unknown"
    return text + (f" ({missing} missing)" if missing else "")


def _neighbours(groups: Sequence[str]) -> Iterator[tuple[str, str]]:
    for one, other in combinations(groups, 2):
        if sum(a != b for a, b in zip(one.split("/"), other.split("/"), strict=True)) == 1:
            yield one, other
