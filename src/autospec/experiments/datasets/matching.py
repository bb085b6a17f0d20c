"""A subsample in which groups are alike: pairs of subjects, one of each group, near in age, sex and motion.

Optimal pair matching within calipers: Rosenbaum 1989, J Am Stat Assoc 84:1024.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account
from autospec.cohorts.phenotype import NUMERIC, as_numbers
from autospec.cohorts.tables import is_missing
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CohortConfig

CALIPER_SD = 0.5
"""How far apart two matched subjects may be in a number, in its SD."""

FORBIDDEN = 1e6


def check_match(config: CohortConfig) -> None:
    """Refuse covariates that groups cannot be matched by.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    columns = config.match
    if len(set(columns)) < len(columns):
        raise AutoSpecError(f"dataset.match={columns}: must name different columns")
    for column in columns:
        if column == config.target:
            raise AutoSpecError(f"dataset.match={columns}: {column} is dataset.target, whose groups are matched")


def match_groups(subjects: pd.DataFrame, config: CohortConfig, account: Account) -> pd.DataFrame:
    """Keep as many subjects of each label of ``dataset.target`` as have a partner in every other.

    Labels (sex, site) must be the same, numbers within half an SD; of all such pairings the one whose differences are
    smallest in sum. With more than two labels each is matched to the smallest.

    Args:
        subjects: The phenotype table, with the names of labels.
        config: ``dataset.match`` names the covariates.
        account: Takes a line for every subject left out.

    Returns:
        The rows that are left, in their order.

    Raises:
        AutoSpecError: A column is lacking, or no two subjects match.
    """
    columns = [name for name in config.match if name not in (config.target,)]
    if not columns:
        return subjects
    for column in columns:
        if column not in subjects.columns:
            raise AutoSpecError(
                f"dataset.match: the cohort has no column {column!r}; it has {', '.join(map(str, subjects.columns))}"
            )
    known = _known(subjects, columns, account)
    sizes = subjects[config.target][known].value_counts()
    if len(sizes) < 2:
        raise AutoSpecError(f"dataset.match={columns}: there is one {config.target} alone, nobody to match with")
    smallest = str(sizes.sort_index().idxmin())
    of = {label: np.flatnonzero(known & (subjects[config.target] == label).to_numpy()) for label in sizes.index}
    kept = set(of[smallest].tolist())
    partners = {}
    for label, rows in of.items():
        if label != smallest:
            partners[label] = _partners(_distances(subjects, of[smallest], rows, columns))
            kept &= {int(of[smallest][one]) for one in partners[label]}
    chosen_rows = set(kept)
    for label, chosen in partners.items():
        chosen_rows |= {int(of[label][other]) for one, other in chosen.items() if int(of[smallest][one]) in kept}
    if not chosen_rows:
        raise AutoSpecError(f"dataset.match={columns}: no two subjects of different {config.target} are near in all")
    for row, subject in enumerate(subjects["id"]):
        if row not in chosen_rows:
            account.drop(str(subject), f"has no partner by dataset.match={columns}")
    account.note(
        f"matched by {', '.join(columns)}: {len(kept)} of each {config.target}, "
        f"{len(subjects) - len(chosen_rows)} left out"
    )
    return subjects.iloc[sorted(chosen_rows)].reset_index(drop=True)


def _known(subjects: pd.DataFrame, columns: Sequence[str], account: Account) -> npt.NDArray[np.bool_]:
    """Who has a value in every column; the account names the others."""
    known = np.ones(len(subjects), dtype=bool)
    for column in columns:
        for row, value in enumerate(subjects[column]):
            missing = not np.isfinite(value) if column in NUMERIC else is_missing(str(value))
            if missing:
                account.drop(str(subjects["id"].iloc[row]), f"{column} is missing, and dataset.match needs it")
                known[row] = False
    return known


def _distances(
    subjects: pd.DataFrame, one: npt.NDArray, other: npt.NDArray, columns: Sequence[str]
) -> npt.NDArray[np.float64]:
    """(len(one), len(other)) Summed differences in SD; FORBIDDEN beyond the caliper or for another label."""
    total = np.zeros((len(one), len(other)))
    for column in columns:
        values = subjects[column].to_numpy(dtype=np.float64) if column in NUMERIC else as_numbers(subjects[column])
        if values is None:
            texts = subjects[column].astype(str).to_numpy()
            total[texts[one][:, None] != texts[other][None]] = FORBIDDEN
            continue
        # a column of one value keeps nobody apart
        spread = float(np.nanstd(values[np.concatenate([one, other])])) or 1.0
        apart = np.abs(values[one][:, None] - values[other][None]) / spread
        total += np.where(apart > CALIPER_SD, FORBIDDEN, apart)
    # capped: the assignment of the smallest sum then has the fewest forbidden pairs, and so the most that match
    return np.minimum(total, FORBIDDEN)


def _partners(distances: npt.NDArray[np.float64]) -> dict[int, int]:
    """Row → column of the pairing with most pairs, and of those the one of the smallest sum."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(distances)
    return {
        int(row): int(column) for row, column in zip(rows, columns, strict=True) if distances[row, column] < FORBIDDEN
    }
