"""FreeSurfer measures of a cohort: tables or stats folders with their participants, or a simulated cohort."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.levels import levels_file, levels_of
from autospec.cohorts.tables import parse_numbers
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import FreesurferConfig
from autospec.experiments.datasets.cohort import (
    build_cohort,
    build_dataset,
    check_cohort,
    read_participants,
    refuse_columns,
)
from autospec.experiments.datasets.dataset import Dataset, Mask
from autospec.experiments.datasets.freesurfer.cortex import CORTEX_FEATURES, note_kinds, note_mixture
from autospec.experiments.datasets.freesurfer.plausibility import keep_plausible
from autospec.experiments.datasets.freesurfer.stats import read_subjects, stats_files
from autospec.experiments.datasets.freesurfer.tables import find_column, join_tables, rename_columns
from autospec.experiments.datasets.freesurfer.volumes import FEATURES as VOLUME_FEATURES
from autospec.experiments.datasets.simulation.freesurfer import effects, simulate_table
from autospec.experiments.datasets.simulation.subjects import check_subjects, generators, simulate_subjects
from autospec.experiments.datasets.visits import join_visits, of_visits

SIMULATION = "freesurfer 1"
"""Raised when the same configuration gives other numbers."""

HEAD_SIZE = "EstimatedTotalIntraCranialVol"
"""The column that is a subject's head size, where the phenotype table has none."""

FEATURES = {**VOLUME_FEATURES, **CORTEX_FEATURES}
"""The named lists of ``dataset.features``."""

log = logging.getLogger(__name__)


def sources(config: FreesurferConfig) -> list[Path]:
    """The tables or stats files, then the participants; no file where the cohort is simulated.

    Args:
        config: The data set's configuration.

    Returns:
        The files in a fixed order.

    Raises:
        AutoSpecError: A file is not there, or keys contradict each other.
    """
    if config.path is not None:
        raise AutoSpecError(
            f"dataset.path={config.path}: freesurfer reads two files, dataset.table and dataset.participants"
        )
    tables = _tables(config)
    if tables and config.subjects_dir is not None:
        raise AutoSpecError(f"dataset.subjects_dir={config.subjects_dir}: dataset.table is given too; choose one")
    if not tables and config.subjects_dir is None:
        if config.participants is None:
            return []
        raise AutoSpecError("dataset.table: is needed where dataset.participants is given (or dataset.subjects_dir)")
    if config.participants is None:
        given = "table" if tables else "subjects_dir"
        raise AutoSpecError(f"dataset.participants: is needed where dataset.{given} is given")
    measures = tables if config.subjects_dir is None else stats_files(Path(config.subjects_dir))
    participants = Path(config.participants)
    described = {config.target, *config.group_by} & set(levels_of(participants, config.columns))
    # the table of subjects comes last: ``load`` reads it there
    return [*measures, *([levels_file(participants)] if described else []), participants]


def check(config: FreesurferConfig) -> None:
    """Refuse a value that the volumes cannot have.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    check_cohort(config)
    if isinstance(config.features, str):
        _named_list(config.features, [])
    if not sources(config):
        refuse_columns(config, None)
        check_subjects(config)
        effects(config)


def load(config: FreesurferConfig) -> Dataset:
    """Load the measures of every subject with a phenotype and complete values.

    Args:
        config: The data set's configuration.

    Returns:
        Measures (n, features).

    Raises:
        AutoSpecError: Names the file or key at fault.
    """
    check(config)
    account = Account()
    with account.told_on_error(log):
        return _load(config, account)


def _load(config: FreesurferConfig, account: Account) -> Dataset:
    files = sources(config)
    subjects, table = _real(files[-1], config, account) if files else _simulate(config, account)
    subjects, table = _usable(subjects, table, account)
    cohort = build_cohort(subjects, config, account)
    values = _varying(table.iloc[cohort.row], cohort.training, account)
    account.note(f"{values.shape[1]} features: {list_names(values.columns)}")
    account.log(log)
    source = _source(config) if files else "simulated FreeSurfer volumes"
    inputs = values.to_numpy(dtype=np.float64)
    return build_dataset(cohort, inputs, config, account, source, not files, list(values.columns))


def _simulate(config: FreesurferConfig, account: Account) -> tuple[pd.DataFrame, pd.DataFrame]:
    who, what = generators(config, 2)
    subjects = simulate_subjects(config, who)
    account.note(f"simulated: {len(subjects)} subjects, effect {config.effect:g}")
    table = simulate_table(config, subjects, what)
    return subjects.table.assign(head_size=table[HEAD_SIZE]), _chosen(table, config.features, account)


def _real(participants: Path, config: FreesurferConfig, account: Account) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The joined subjects, with their head size where it is known, and the chosen columns."""
    source, folder = _source_path(config), config.subjects_dir
    read = join_tables(_tables(config), account) if folder is None else read_subjects(Path(folder), account)
    ids = [str(subject) for subject in read.iloc[:, 0]]
    subjects, visits = join_visits(read_participants(participants, config, account), ids, config, account, source.name)
    table = rename_columns(read.iloc[:, 1:], account)
    note_kinds(table.columns, account)
    chosen = _chosen(table, config.features, account)
    note_mixture(chosen.columns, account)
    if HEAD_SIZE in table.columns and "head_size" not in subjects.columns:
        head_size = of_visits(parse_numbers(table[[HEAD_SIZE]], ids, source)[:, 0], visits)
        subjects = subjects.assign(head_size=head_size[subjects["row"]])
    values = pd.DataFrame(of_visits(parse_numbers(chosen, ids, source), visits), columns=chosen.columns)
    return keep_plausible(subjects, values, account), values


def _tables(config: FreesurferConfig) -> list[Path]:
    """``dataset.table`` as a list: it may be one file or several."""
    given = config.table
    paths = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise AutoSpecError(f"dataset.table={given}: must be a file, or a list of files")
    return [Path(path) for path in paths]


def _source(config: FreesurferConfig) -> str:
    if config.subjects_dir is not None:
        return f"FreeSurfer stats of {Path(config.subjects_dir).name}"
    return f"FreeSurfer table {' and '.join(path.name for path in _tables(config))}"


def _source_path(config: FreesurferConfig) -> Path:
    return _tables(config)[0] if config.subjects_dir is None else Path(config.subjects_dir)


def _chosen(table: pd.DataFrame, features: object, account: Account) -> pd.DataFrame:
    """The columns that ``dataset.features`` asks for: a named list, ``all``, or a list of columns."""
    if isinstance(features, str):
        wanted = _named_list(features, list(table.columns))
        lacking = [name for name in wanted if find_column(name, list(table.columns)) is None]
        if lacking:
            account.note(f"features={features}: the table lacks {', '.join(lacking)}")
    elif isinstance(features, Sequence) and features:
        wanted = [str(name) for name in features]
        _check_columns(wanted, list(table.columns))
    else:
        raise AutoSpecError(f"dataset.features={features}: must be {', '.join(FEATURES)}, all, or a list of columns")
    chosen = [column for name in wanted if (column := find_column(name, list(table.columns))) is not None]
    if not chosen:
        raise AutoSpecError(f"dataset.features={features}: the table has none of them, but {list_names(table.columns)}")
    unused = [name for name in table.columns if name not in set(chosen)]
    if unused:
        account.note(f"{len(unused)} of {len(table.columns)} columns are not used: {list_names(unused)}")
    return table[chosen]


def _named_list(name: str, columns: list[str]) -> list[str]:
    if name == "all":
        return columns
    if name not in FEATURES:
        raise AutoSpecError(f"dataset.features={name}: unknown; allowed are {', '.join(FEATURES)}, all, or [columns]")
    return list(FEATURES[name])


def _check_columns(wanted: list[str], columns: list[str]) -> None:
    for name in wanted:
        if wanted.count(name) > 1:
            raise AutoSpecError(f"dataset.features: {name!r} is listed {wanted.count(name)} times")
        if find_column(name, columns) is None:
            close = get_close_matches(name, columns, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise AutoSpecError(f"dataset.features: the table has no column {name!r}{hint}")


def _usable(subjects: pd.DataFrame, table: pd.DataFrame, account: Account) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The subjects without a missing value and their values, less columns that say nothing (empty or constant)."""
    values = table.iloc[subjects["row"]].reset_index(drop=True)
    silent = [str(name) for name in values if values[name].nunique(dropna=True) < 2]
    if silent:
        account.note(f"constant or empty columns are left out: {', '.join(silent)}")
    values = values.drop(columns=silent)
    if values.columns.empty:
        raise AutoSpecError("dataset.features: every chosen column is constant or empty")
    missing = values.isna()
    for row in np.flatnonzero(missing.any(axis=1)):
        account.drop(str(subjects["id"].iloc[row]), f"no value of {list_names(values.columns[missing.iloc[row]])}")
    complete = ~missing.any(axis=1)
    if not complete.any():
        raise AutoSpecError(f"no subject has a value in each of {list_names(values.columns)}")
    kept = subjects[complete].reset_index(drop=True)
    return kept.assign(row=np.arange(len(kept))), values[complete]


def _varying(values: pd.DataFrame, training: Mask, account: Account) -> pd.DataFrame:
    """The columns that vary among the subjects who are trained on, once all others have been left out."""
    silent = [str(name) for name in values if values[name][training].nunique() < 2]
    if silent:
        subjects = f"the {training.sum()} training subjects"
        account.note(f"columns that are constant in {subjects} are left out: {', '.join(silent)}")
    if len(silent) == values.shape[1]:
        raise AutoSpecError(f"dataset.features: every column is constant in the {training.sum()} training subjects")
    return values.drop(columns=silent)
