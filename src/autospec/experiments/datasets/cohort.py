"""A cohort: subjects and their data, sorted into classes, groups and margins by the labels of a phenotype table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account
from autospec.cohorts.joining import check_id_pattern
from autospec.cohorts.levels import with_levels
from autospec.cohorts.phenotype import NUMERIC, PARTICIPANT, read_phenotype
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CohortConfig
from autospec.experiments.datasets.balance import Difference, note_balance
from autospec.experiments.datasets.dataset import LEVERAGE, Dataset, Integers, Mask, hold_out
from autospec.experiments.datasets.facts import cohort_facts
from autospec.experiments.datasets.harmonization import check_harmonize, harmonize
from autospec.experiments.datasets.labels import (
    called_by_labels,
    crossed_groups,
    label_subjects,
    levels_in_order,
    margins_of,
    names_of_values,
    note_bare_numbers,
    to_codes,
)
from autospec.experiments.datasets.matching import check_match, match_groups
from autospec.experiments.datasets.residuals import (
    Design,
    check_residualize,
    design_matrix,
    keep_with_covariates,
    leverage_quarters,
    note_constants,
    note_kinds_of_covariates,
    residualize,
)
from autospec.experiments.datasets.scaling import check_scaling, scale
from autospec.experiments.datasets.visits import check_session


@dataclass(frozen=True)
class Cohort:
    """Subjects in the order of their data: ``row`` (n,) indexes the data; the rest is as in Dataset.

    ``covariates`` (n, k) are those to be taken out of the data; ``columns`` is the phenotype table, as text;
    ``balance`` are the groups' differences in other covariates.
    """

    row: Integers
    subjects: tuple[str, ...]
    target: Integers
    classes: tuple[str, ...]
    group: Integers
    groups: tuple[str, ...]
    margins: Mapping[str, tuple[str, ...]]
    training: Mask
    covariates: Design
    columns: Mapping[str, tuple[str, ...]]
    balance: tuple[Difference, ...] = ()
    table: pd.DataFrame = field(default_factory=pd.DataFrame)


def check_cohort(config: CohortConfig) -> None:
    """Refuse a scaling, target, grouping, motion cut or covariate that no cohort can have.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    check_scaling(config.scaling)
    check_residualize(config)
    check_harmonize(config)
    check_match(config)
    check_session(config)
    check_id_pattern(config.id_pattern, "dataset.id_pattern=")
    if config.motion_cut is not None and not config.motion_cut > 0:
        raise AutoSpecError(f"dataset.motion_cut={config.motion_cut}: must be above 0, or null")
    if not config.group_by or len(set(config.group_by)) < len(config.group_by):
        raise AutoSpecError(f"dataset.group_by={config.group_by}: must name different columns")
    for column in (config.target, *config.group_by):
        names_of_values(config, column)


def build_cohort(subjects: pd.DataFrame, config: CohortConfig, account: Account) -> Cohort:
    """Sort subjects into classes, groups and margins, and choose the training subjects.

    Args:
        subjects: A table with id, row, the target and the group_by columns.
        config: The data set's configuration.
        account: Takes a line for every subject left out.

    Returns:
        The cohort.

    Raises:
        AutoSpecError: A column is lacking, or no subject has a usable value.
    """
    columns = list(dict.fromkeys([config.target, *config.group_by]))
    for column in columns:
        if column not in subjects.columns:
            raise AutoSpecError(
                f"dataset: the cohort has no column {column!r}; it has {', '.join(subjects.columns)}"
                + _instead(column, subjects.columns)
            )
    labelled = label_subjects(subjects, columns, config, account)
    others = [
        name
        for name in dict.fromkeys(["sex", *config.residualize, *config.harmonize, *config.match])
        if name in labelled.columns
    ]
    labelled = labelled.assign(
        **{name: called_by_labels(labelled, name, config) for name in others if name not in NUMERIC}
    )
    labelled = keep_with_covariates(
        _still(labelled, config.motion_cut, account), [*config.residualize, *config.harmonize], account
    )
    labelled = match_groups(labelled, config, account)
    note_kinds_of_covariates(labelled, config.residualize, account)
    note_bare_numbers(labelled, config, account)
    target, classes = to_codes(labelled[config.target], levels_in_order(labelled, config.target, config))
    cells = labelled[config.group_by].agg("/".join, axis=1)
    margins = margins_of(labelled, config)
    group, groups = to_codes(cells, crossed_groups(labelled, config))
    sizes = [f"{name} {count}" for name, count in zip(groups, np.bincount(group).tolist(), strict=True)]
    account.note(f"{len(labelled)} subjects; groups: {', '.join(sizes)}")
    members = {name: group == code for code, name in enumerate(groups)}
    balance = note_balance(labelled, members, config.group_by, account)
    ids = tuple(str(label) for label in labelled["id"])
    sex = labelled["sex"] if "sex" in labelled.columns else [""] * len(labelled)
    strata = [f"{label} {other}" for label, other in zip(labelled[config.target], sex, strict=True)]
    training = hold_out(ids, strata, config.holdout, config.holdout_seed)
    note_constants(labelled[training], config.residualize, account)
    return Cohort(
        row=labelled["row"].to_numpy(dtype=np.int64),
        subjects=ids,
        target=target,
        classes=classes,
        group=group,
        groups=groups,
        margins=margins,
        training=training,
        covariates=design_matrix(labelled, config.residualize),
        columns=_columns(labelled),
        balance=balance,
        table=labelled,
    )


def build_dataset(
    cohort: Cohort,
    inputs: npt.NDArray,
    config: CohortConfig,
    account: Account,
    source: str,
    simulated: bool,
    features: Sequence[str] = (),
    adjust: Callable[..., tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]] = residualize,
) -> Dataset:
    """A cohort and its data, in the cohort's order, as a data set with scaled inputs.

    Args:
        cohort: Who is in it.
        inputs: (n, ...) Their data.
        config: The data set's configuration.
        account: Goes into the data set.
        source: Where the data come from, in a few words.
        simulated: Whether they are simulated.
        features: The names of the columns of a table (n, columns), for messages.
        adjust: What takes covariates out of the inputs: ``residualize``, or one with its arguments.

    Returns:
        The data set.

    Raises:
        AutoSpecError: Covariates cannot be taken out, or values cannot be scaled.
    """
    fitted: dict[str, npt.NDArray[np.float64]] = {}
    facts: dict[str, Any] = {}
    if config.harmonize:
        inputs, facts["site_effects"] = harmonize(inputs, cohort.table, cohort.training, config, account)
    if config.residualize:
        inputs, fitted = adjust(
            inputs, cohort.covariates, cohort.training, features, cohort.subjects, config.equal_leverage
        )
    # what is said of a subject decides who can be exchanged with whom in a test
    columns = dict(cohort.columns)
    if config.residualize:
        columns[LEVERAGE] = leverage_quarters(cohort.covariates, cohort.training)
    result = scale(inputs, config.scaling, cohort.training)
    return Dataset(
        inputs=result.inputs,
        target=cohort.target,
        classes=cohort.classes,
        group=cohort.group,
        groups=cohort.groups,
        subjects=cohort.subjects,
        training=cohort.training,
        source=source,
        simulated=simulated,
        margins=cohort.margins,
        scaling={**fitted, **result.fitted},
        account=account.text(),
        columns=columns,
        balance=tuple(one.record() for one in cohort.balance),
        facts={**cohort_facts(config, cohort.balance, inputs.shape[1:], source), **facts},
    )


def _instead(column: str, available: Iterable[str]) -> str:
    """What to compare instead, for the end of a message that a label is lacking; empty where nothing is known."""
    other = {"diagnosis": "sex", "sex": "diagnosis"}.get(column, "")
    return f"; without it, dataset.target={other} dataset.group_by=[{other}]" if other in available else ""


def _columns(subjects: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """What is known of every subject, by column, as text."""
    names = [str(name) for name in subjects.columns if name not in ("id", "row")]
    return {name: tuple(str(value) for value in subjects[name]) for name in names}


def _still(subjects: pd.DataFrame, cut: float | None, account: Account) -> pd.DataFrame:
    """The subjects who moved no more than ``dataset.motion_cut``; the account names the others."""
    if cut is None:
        return subjects
    if "motion" not in subjects.columns:
        raise AutoSpecError(
            f"dataset.motion_cut={cut:g}: the cohort has no column 'motion'; see dataset.columns.motion"
        )
    motion = subjects["motion"].to_numpy(dtype=np.float64)
    for row in np.flatnonzero(~(motion <= cut)):
        is_known = np.isfinite(motion[row])
        reason = f"motion {motion[row]:.3g} is above" if is_known else "motion is missing, and there is"
        account.drop(str(subjects["id"].iloc[row]), f"{reason} dataset.motion_cut={cut:g}")
    if not (motion <= cut).any():
        raise AutoSpecError(f"dataset.motion_cut={cut:g}: every subject moved more, or their motion is missing")
    return subjects[motion <= cut].reset_index(drop=True)


def read_participants(path: Path, config: CohortConfig, account: Account) -> pd.DataFrame:
    """Read the phenotype table with our column names (``dataset.columns``).

    Args:
        path: The table.
        config: The data set's configuration.
        account: Takes a line about the table.

    Returns:
        Text, but numbers where NUMERIC says so.

    Raises:
        AutoSpecError: The table cannot be read or lacks a column.
    """
    needed = [name for name in ("id", config.target, *config.group_by) if name != "session"]
    subjects = read_phenotype(path, config.columns, needed, account, "dataset.columns.")
    return with_levels(subjects, path, config.columns, account)


def refuse_columns(config: CohortConfig, prepared: str | None) -> None:
    """Refuse a column of another name where no phenotype table is read.

    Args:
        config: The data set's configuration.
        prepared: The key that names a prepared cohort; None where the cohort is simulated.

    Raises:
        AutoSpecError: Says where the name belongs.
    """
    for ours, theirs in config.columns.items():
        if theirs not in (ours, PARTICIPANT if ours == "id" else ours):
            reason = "the cohort is simulated, no table of subjects is read"
            if prepared is not None:
                reason = f"{prepared} is a prepared cohort with our names; give --column {ours}={theirs} when preparing"
            raise AutoSpecError(f"dataset.columns.{ours}={theirs}: does nothing here, {reason}")
