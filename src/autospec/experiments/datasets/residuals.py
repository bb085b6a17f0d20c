"""Covariates taken out of the data: a linear fit on training subjects, subtracted from every subject."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.phenotype import NUMERIC, as_numbers
from autospec.cohorts.tables import is_missing
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CohortConfig
from autospec.experiments.datasets.connectivity import connectivity, with_connectivity
from autospec.experiments.datasets.dataset import Mask

ALONE = 1e-9
"""A leverage so near to 1 is 1."""

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


def residualize_connectivity(
    timecourses: npt.NDArray,
    covariates: Design,
    training: Mask,
    features: Sequence[str] = (),
    subjects: Sequence[str] = (),
    equal_leverage: bool = False,
) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]:
    """Take covariates out of what time-courses of different people have in common: their connectivity.

    Time points at rest have nothing in common that could be adjusted; Fisher's z of the correlations has. They are
    residualized, and each subject's time-courses are mixed as little as possible to have the adjusted ones. Effects on
    the spectra of single components stay.

    Args:
        timecourses: (n, time, components).
        covariates: (n, k).
        training: (n,) Whom the fit is made on.
        features: Ignored.
        subjects: (n,) Ids, for messages.
        equal_leverage: See ``residualize``.

    Returns:
        Time-courses (n, time, components), and the fit by name.

    Raises:
        AutoSpecError: As ``residualize`` does.
    """
    vectors = connectivity(timecourses)[:, 0]
    adjusted, fitted = residualize(vectors, covariates, training, (), subjects, equal_leverage)
    return with_connectivity(timecourses, adjusted), fitted


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
        numbers = subjects[column].to_numpy(dtype=np.float64) if column in NUMERIC else as_numbers(subjects[column])
        if numbers is not None:
            parts.append(numbers)
        else:
            texts = np.array([str(text) for text in subjects[column]])
            parts += [(texts == label).astype(np.float64) for label in sorted(set(texts))[1:]]
    return np.column_stack(parts) if parts else np.empty((len(subjects), 0))


def note_kinds_of_covariates(subjects: pd.DataFrame, columns: Sequence[str], account: Account) -> None:
    """Say which covariates are taken as numbers and which as labels, since a table does not.

    Args:
        subjects: The phenotype table.
        columns: ``dataset.residualize``.
        account: Takes the line.
    """
    kinds = []
    for column in columns:
        is_number = column in NUMERIC or as_numbers(subjects[column]) is not None
        kinds.append(f"{column} as a number" if is_number else f"{column} as {subjects[column].nunique()} labels")
    if kinds:
        account.note(f"taken out of every value: {', '.join(kinds)} (dataset.residualize)")


def residualize(
    inputs: npt.NDArray,
    covariates: Design,
    training: Mask,
    features: Sequence[str] = (),
    subjects: Sequence[str] = (),
    equal_leverage: bool = False,
) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]:
    """Take out of the inputs what a linear fit on the training subjects says of the covariates.

    The mean stays: covariates are taken relative to their mean over training subjects.

    Args:
        inputs: (n, ...).
        covariates: (n, k).
        training: (n,) Whom the fit is made on.
        features: The names of the inputs' columns, for messages.
        subjects: (n,) Ids, for messages.
        equal_leverage: Divide each training subject's residual by √(1 − h), h being the leverage in the fit, so that
            the residuals of all subjects have one variance and can be exchanged in a test (MacKinnon & White 1985,
            J Econom 29:305).

    Returns:
        Inputs (n, ...), and the fit by name.

    Raises:
        AutoSpecError: There are too few training subjects for a fit, a subject is alone with a label, or the
            covariates tell all of a feature, such as head size.
    """
    if training.sum() < covariates.shape[1] + 2:
        raise AutoSpecError(
            f"dataset.residualize: {int(training.sum())} training subjects are too few for "
            f"{covariates.shape[1]} covariates"
        )
    flat = np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1)
    centre, spread = covariates[training].mean(axis=0), covariates[training].std(axis=0)
    # a covariate that is the same in all training subjects is left alone: nothing can be learned of it
    inverse_scale = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0)
    z = (covariates - centre) * inverse_scale
    leverage = _leverage(z[training])
    _check_leverage(leverage, np.flatnonzero(training), subjects)
    mean = flat[training].mean(axis=0)
    fit = np.linalg.lstsq(z[training], flat[training] - mean, rcond=None)[0]
    left = flat - z @ fit
    _check_left(left[training].std(axis=0), flat[training].std(axis=0), features)
    if equal_leverage:
        left[training] = mean + (left[training] - mean) / np.sqrt(1 - leverage)[:, None]
    fitted = {"residualize_centre": centre, "residualize_slope": fit * inverse_scale[:, None]}
    return left.reshape(inputs.shape), fitted


def leverage_quarters(covariates: Design, training: Mask) -> tuple[str, ...]:
    """Say how much each subject decided the fit, in quarters of the training subjects.

    Residuals of subjects with much leverage are smaller. Where the covariates' spread differs between groups, so does
    their leverage, and labels could be told from residuals that know nothing of them: of 40 null studies with three
    covariates of 2.5 times the spread in one of two groups of 24, a test found a difference in 0.38. Exchanged within
    quarters, it was 0.05.

    Args:
        covariates: (n, k).
        training: (n,) Whom the fit was made on.

    Returns:
        (n,) The quarter of each, ``1`` to ``4``; empty text for those who were held out.
    """
    spread = covariates[training].std(axis=0)
    used = spread > 0
    z = (covariates[training][:, used] - covariates[training][:, used].mean(axis=0)) / spread[used]
    leverage = np.round(_leverage(z), 9)  # equal ones into one quarter
    quarter = 1 + np.digitize(leverage, np.quantile(leverage, [0.25, 0.5, 0.75]), right=True)
    names = np.full(len(covariates), "", dtype=object)
    names[training] = quarter.astype(str)
    return tuple(names)


def _leverage(z: Design) -> npt.NDArray[np.float64]:
    """(n,) How much each subject decides the fit at its own place, from 1/n to 1: the diagonal of the hat matrix."""
    basis = np.linalg.svd(z, full_matrices=False)
    used = basis.S.max(initial=0) * 1e-10 < basis.S
    leverage: npt.NDArray[np.float64] = 1 / len(z) + (basis.U[:, used] ** 2).sum(axis=1)
    return leverage


def _check_leverage(leverage: npt.NDArray[np.float64], rows: npt.NDArray[np.intp], subjects: Sequence[str]) -> None:
    """AutoSpecError for subjects whom the fit meets exactly, which makes them the mean of everybody."""
    alone = rows[leverage > 1 - ALONE]
    if alone.size:
        who = list_names(subjects[row] for row in alone.tolist()) if subjects else f"{alone.size} subjects"
        raise AutoSpecError(
            f"dataset.residualize: {who} alone has a label (such as a site), and taking it out would make the subject "
            "exactly the mean of all: leave it out, or give it another's label by dataset.labels"
        )


def _check_left(left: Design, before: Design, features: Sequence[str]) -> None:
    """AutoSpecError for values of which rounding alone is left, which scaling would blow up."""
    gone = np.flatnonzero((before > 0) & (left <= ROUNDING * before))
    if gone.size:
        label = (
            list_names(features[index] for index in gone.tolist()) if features else f"{gone.size} of {left.size} values"
        )
        raise AutoSpecError(f"dataset.residualize: the covariates tell all of {label}; leave it out of either")
