"""Covariates taken out of the data: a linear fit on training subjects, subtracted from every subject."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.phenotype import NUMERIC
from autospec.cohorts.tables import is_missing
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CohortConfig
from autospec.experiments.datasets.dataset import Mask

ROUNDING = 1e-9
"""A standard deviation that is so much smaller than before is rounding."""

Design = npt.NDArray[np.float64]


def check_residualize(config: CohortConfig) -> None:
    """Refuse covariates that cannot be taken out.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    columns = config.residualize
    if len(set(columns)) < len(columns):
        raise AutoSpecError(f"dataset.residualize={columns}: must name different columns")
    if config.target in columns:
        raise AutoSpecError(f"dataset.residualize={columns}: {config.target} is dataset.target, which is to be learned")


def refuse_residualize(config: CohortConfig) -> None:
    """Refuse any covariate: time points of two subjects at rest have nothing in common to be adjusted.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    if config.residualize:
        raise AutoSpecError(
            f"dataset.residualize={config.residualize}: time-courses of different subjects share no time axis; use "
            "dataset.motion_cut or dataset.group_by, and prepare the cohort with motion regressed out"
        )


def keep_with_covariates(subjects: pd.DataFrame, columns: Sequence[str], account: Account) -> pd.DataFrame:
    """Keep the subjects whose covariates are all known; the account names the others.

    Args:
        subjects: The phenotype table.
        columns: ``dataset.residualize``.
        account: Takes a line for every subject left out.

    Returns:
        The rows that are left.

    Raises:
        AutoSpecError: A column is lacking, or no subject is left.
    """
    kept = np.ones(len(subjects), dtype=bool)
    for column in columns:
        if column not in subjects.columns:
            raise AutoSpecError(
                f"dataset.residualize: the cohort has no column {column!r}; it has {', '.join(subjects.columns)}"
            )
        for row, value in enumerate(subjects[column]):
            if not np.isfinite(value) if column in NUMERIC else is_missing(str(value)):
                account.drop(str(subjects["id"].iloc[row]), f"{column} is missing, and dataset.residualize needs it")
                kept[row] = False
    if not kept.any():
        raise AutoSpecError(f"dataset.residualize={list(columns)}: no subject has a value of each")
    return subjects[kept].reset_index(drop=True)


def note_constants(training: pd.DataFrame, columns: Sequence[str], account: Account) -> None:
    """Say which covariates are the same in all training subjects, so that nothing can be learned of them.

    Args:
        training: The rows of the training subjects.
        columns: ``dataset.residualize``.
        account: Takes the warnings.
    """
    for column in columns:
        if training[column].nunique(dropna=False) < 2:
            account.warn(f"dataset.residualize: {column} is the same in all training subjects; nothing is taken out")


def design_matrix(subjects: pd.DataFrame, columns: Sequence[str]) -> Design:
    """Covariates as columns: numbers as they are, and zeros and ones for each label but the first.

    Args:
        subjects: The phenotype table.
        columns: ``dataset.residualize``.

    Returns:
        (n, k).
    """
    parts: list[Design] = []
    for column in columns:
        if column in NUMERIC:
            parts.append(subjects[column].to_numpy(dtype=np.float64))
        else:
            texts = np.array([str(text) for text in subjects[column]])
            parts += [(texts == label).astype(np.float64) for label in sorted(set(texts))[1:]]
    return np.column_stack(parts) if parts else np.empty((len(subjects), 0))


def residualize(
    inputs: npt.NDArray, covariates: Design, training: Mask, features: Sequence[str] = ()
) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]:
    """Take out of the inputs what a linear fit on the training subjects says of the covariates.

    The mean stays: covariates are taken relative to their mean over training subjects.

    Args:
        inputs: (n, ...).
        covariates: (n, k).
        training: (n,) Whom the fit is made on.
        features: The names of the inputs' columns, for messages.

    Returns:
        Inputs (n, ...), and the fit by name.

    Raises:
        AutoSpecError: There are too few training subjects for a fit, or the covariates tell all of a feature, such as
            head size.
    """
    if training.sum() < covariates.shape[1] + 2:
        raise AutoSpecError(
            f"dataset.residualize: {int(training.sum())} training subjects are too few for "
            f"{covariates.shape[1]} covariates"
        )
    flat = np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1)
    centre, scale = covariates[training].mean(axis=0), covariates[training].std(axis=0)
    # a covariate that is the same in all training subjects is left alone: nothing can be learned of it
    inverse_scale = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0)
    z = (covariates - centre) * inverse_scale
    fit = np.linalg.lstsq(z[training], flat[training] - flat[training].mean(axis=0), rcond=None)[0]
    left = flat - z @ fit
    _check_left(left[training].std(axis=0), flat[training].std(axis=0), features)
    fitted = {"residualize_centre": centre, "residualize_slope": fit * inverse_scale[:, None]}
    return left.reshape(inputs.shape), fitted


def _check_left(left: Design, before: Design, features: Sequence[str]) -> None:
    """AutoSpecError for values of which rounding alone is left, which scaling would blow up."""
    gone = np.flatnonzero((before > 0) & (left <= ROUNDING * before))
    if gone.size:
        label = (
            list_names(features[index] for index in gone.tolist()) if features else f"{gone.size} of {left.size} values"
        )
        raise AutoSpecError(f"dataset.residualize: the covariates tell all of {label}; leave it out of either")
