"""Sites harmonised by ComBat: fitted on training subjects, applied to everybody.

Johnson et al. 2007, Biostatistics 8:118; Fortin et al. 2018, NeuroImage 167:104, which keeps covariates. The numbers
are combatlearn's.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.phenotype import NUMERIC, as_numbers
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CohortConfig
from autospec.experiments.datasets.dataset import Mask
from autospec.experiments.datasets.site_effects import largest_shift, site_effects

FEWEST = 2
"""Training subjects of a site that a location and a scale can be estimated of."""

KEPT = ("age", "sex")
"""Covariates that are kept where they are known, beside the groups that are compared."""


def check_harmonize(config: CohortConfig) -> None:
    """Refuse columns that nothing can be harmonised by.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    columns = config.harmonize
    if len(set(columns)) < len(columns):
        raise AutoSpecError(f"dataset.harmonize={columns}: must name different columns")
    for column in columns:
        if column in (config.target, *config.group_by):
            raise AutoSpecError(
                f"dataset.harmonize={columns}: {column} is what is compared or learned; it cannot be taken out too"
            )
        if column in config.residualize:
            raise AutoSpecError(f"dataset.harmonize={columns}: {column} is in dataset.residualize too; give one")
        if column in NUMERIC:
            raise AutoSpecError(f"dataset.harmonize={columns}: {column} is a number, not a site; see residualize")


def refuse_harmonize(config: CohortConfig) -> None:
    """Refuse to harmonise time points, which subjects at rest do not share.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: There is something to harmonise by.
    """
    if config.harmonize:
        raise AutoSpecError(
            f"dataset.harmonize={config.harmonize}: time-courses of different subjects share no time axis; "
            "harmonise tables or maps"
        )


def kept_covariates(subjects: pd.DataFrame, config: CohortConfig) -> list[str]:
    """The columns whose effects ComBat keeps: the groups that are compared, age and sex, where they vary.

    With subjects held out, what is learned is not among them, since a held-out subject's own label would then shape
    that subject's data.

    Args:
        subjects: The phenotype table.
        config: The data set's configuration.

    Returns:
        Column names.
    """
    wanted = dict.fromkeys([*config.group_by, config.target, *KEPT])
    if config.holdout:
        wanted.pop(config.target, None)
    known = [name for name in wanted if name in subjects.columns and name not in config.harmonize]
    return [name for name in known if subjects[name].nunique() > 1 and subjects[name].notna().all()]


def harmonize(
    inputs: npt.NDArray, subjects: pd.DataFrame, training: Mask, config: CohortConfig, account: Account
) -> tuple[npt.NDArray[np.float64], dict[str, Any]]:
    """Take the location and the scale of each site out of every value, as the training subjects have them.

    Args:
        inputs: (n, ...), in the order of the subjects.
        subjects: The phenotype table.
        training: (n,) Whom the fit is made on.
        config: ``dataset.harmonize`` names the columns of the site.
        account: Takes what was kept.

    Returns:
        (n, ...), and the effects of the training subjects' sites (``site_effects``) before and after.

    Raises:
        AutoSpecError: A site has too few training subjects, the sites are the groups, or combatlearn is not installed.
    """
    batch = subjects[list(config.harmonize)].astype(str).agg(" ".join, axis=1).reset_index(drop=True)
    kept = kept_covariates(subjects, config)
    _check_sites(batch, training, subjects, kept)
    flat = np.array(inputs, dtype=np.float64).reshape(len(inputs), -1)
    before = site_effects(flat[training], batch[training].tolist())
    varying = np.ptp(flat[training], axis=0) > 0
    labels, numbers = _covariates(subjects, kept)
    model = _combat()(batch, discrete_covariates=labels, continuous_covariates=numbers, method="fortin")
    table = pd.DataFrame(flat[:, varying])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small sites, which _check_sites and the account speak of
        try:
            fitted = model.fit(table[training])
            flat[:, varying] = np.asarray(fitted.transform(table))
        except (ValueError, np.linalg.LinAlgError) as error:
            raise AutoSpecError(f"dataset.harmonize={config.harmonize}: {' '.join(str(error).split())}") from error
    sizes = ", ".join(f"{site} {count}" for site, count in sorted(Counter(batch).items()))
    account.note(
        f"harmonised by ComBat over {' and '.join(config.harmonize)} ({sizes}); kept: {', '.join(kept) or 'nothing'}"
    )
    after = site_effects(flat[training], batch[training].tolist())
    account.note(
        f"sites lay up to {largest_shift(before):.2f} SD from everybody (quartiles of features), and now up to "
        f"{largest_shift(after):.2f} SD"
    )
    return flat.reshape(inputs.shape), {"before": before, "after": after}


def _combat() -> Any:
    try:
        from combatlearn import ComBat
    except ImportError as error:
        raise AutoSpecError(
            "dataset.harmonize: ComBat is combatlearn's; pip install 'autospec-torch[harmonize]'"
        ) from error
    return ComBat


def _covariates(subjects: pd.DataFrame, kept: Sequence[str]) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Labels and numbers that are kept, each None where there is none."""
    labels: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    for name in kept:
        values = subjects[name].to_numpy(dtype=np.float64) if name in NUMERIC else as_numbers(subjects[name])
        if values is None:
            labels[name] = [str(text) for text in subjects[name]]
        else:
            numbers[name] = values
    return pd.DataFrame(labels) if labels else None, pd.DataFrame(numbers) if numbers else None


def _check_sites(batch: pd.Series, training: Mask, subjects: pd.DataFrame, kept: Sequence[str]) -> None:
    """AutoSpecError for sites that cannot be told from the groups, or of too few training subjects."""
    counts = Counter(batch[training])
    if len(counts) < 2:
        raise AutoSpecError(f"dataset.harmonize: all training subjects are of one site ({next(iter(counts), 'none')})")
    for site in sorted(set(batch)):
        if counts[site] < FEWEST:
            who = list_names(str(subject) for subject in subjects["id"][(batch == site).to_numpy()])
            raise AutoSpecError(
                f"dataset.harmonize: site {site} has {counts[site]} training subject(s) ({who}); ComBat needs {FEWEST} "
                "or more: leave them out, or give them another site's name by dataset.labels"
            )
    for name in kept:
        if name not in NUMERIC:
            pairs = pd.crosstab(batch[training].to_numpy(), subjects[name].astype(str).to_numpy()[training])
            if len(pairs.columns) > 1 and (pairs > 0).sum(axis=1).max() == 1:
                raise AutoSpecError(
                    f"dataset.harmonize: every site has one {name} alone, so that taking out sites takes out {name}"
                )
