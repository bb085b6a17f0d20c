"""FreeSurfer volumes of a cohort: an ``asegstats2table`` table with its participants, or a simulated cohort."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.config.schema import FreesurferConfig
from autospec.datasets.account import Account, named
from autospec.datasets.cohort import check_cohort, cohort, dataset_of
from autospec.datasets.dataset import Dataset
from autospec.datasets.freesurfer_simulation import effects, simulated_table
from autospec.datasets.freesurfer_volumes import FEATURES, OLD_NAMES
from autospec.datasets.phenotype import joined, read_people
from autospec.datasets.simulation import check_people, generators, simulated_people
from autospec.datasets.tables import numbers, read_table
from autospec.errors import AutoSpecError

SIMULATION = "freesurfer 1"
"""Raised when the same configuration gives other numbers."""

log = logging.getLogger(__name__)


def sources(config: FreesurferConfig) -> list[Path]:
    """The table and the participants; no file where the cohort is simulated."""
    if config.path is not None:
        raise AutoSpecError(
            f"dataset.path={config.path}: freesurfer reads two files, dataset.table and dataset.participants"
        )
    if config.table is None and config.participants is None:
        return []
    if config.table is None or config.participants is None:
        given, lacking = ("table", "participants") if config.table else ("participants", "table")
        raise AutoSpecError(f"dataset.{lacking}: is needed where dataset.{given} is given")
    return [Path(config.table), Path(config.participants)]


def check(config: FreesurferConfig) -> None:
    """AutoSpecError for a value that the volumes cannot have."""
    check_cohort(config)
    if isinstance(config.features, str):
        _named_list(config.features, [])
    if not sources(config):
        check_people(config)
        effects(config)


def load(config: FreesurferConfig) -> Dataset:
    """Volumes (n, features) of everybody with a phenotype and complete values."""
    check(config)
    account = Account()
    files = sources(config)
    people, table = _real(files[0], files[1], config, account) if files else _simulated(config, account)
    people, values = _usable(people, table, account)
    found = cohort(people, config, account)
    account.log(log)
    source = f"FreeSurfer table {files[0].name}" if files else "simulated FreeSurfer volumes"
    return dataset_of(found, values[found.row], config, account, source, simulated=not files)


def _simulated(config: FreesurferConfig, account: Account) -> tuple[pd.DataFrame, pd.DataFrame]:
    who, what = generators(config, 2)
    people = simulated_people(config, who)
    account.note(f"simulated: {len(people)} people, effect {config.effect:g}")
    return people.table, _chosen(simulated_table(config, people, what), config.features, account)


def _real(
    file: Path, participants: Path, config: FreesurferConfig, account: Account
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The joined people and the chosen columns of the table, whose first column is the subject."""
    table = read_table(file)
    ids = [str(own) for own in table.iloc[:, 0]]
    people = joined(read_people(participants, config, account), ids, account, file.name)
    chosen = _chosen(_renamed(table.iloc[:, 1:], account), config.features, account)
    return people, pd.DataFrame(numbers(chosen, ids, file), columns=chosen.columns)


def _renamed(table: pd.DataFrame, account: Account) -> pd.DataFrame:
    """The table with the column names of version 6."""
    renamed = {old: new for old, new in OLD_NAMES.items() if old in table.columns and new not in table.columns}
    if renamed:
        account.note("renamed columns: " + ", ".join(f"{old} is {new}" for old, new in renamed.items()))
    return table.rename(columns=renamed)


def _chosen(table: pd.DataFrame, features: object, account: Account) -> pd.DataFrame:
    """The columns that ``dataset.features`` asks for: a named list, ``all``, or a list of columns."""
    if isinstance(features, str):
        wanted = _named_list(features, list(table.columns))
        lacking = [name for name in wanted if name not in table.columns]
        if lacking:
            account.note(f"features={features}: the table lacks {', '.join(lacking)}")
    elif isinstance(features, Sequence) and features:
        wanted = [str(name) for name in features]
        _check_columns(wanted, list(table.columns))
    else:
        raise AutoSpecError(f"dataset.features={features}: must be {', '.join(FEATURES)}, all, or a list of columns")
    chosen = [name for name in wanted if name in table.columns]
    if not chosen:
        raise AutoSpecError(f"dataset.features={features}: the table has none of them, but {named(table.columns)}")
    unused = [name for name in table.columns if name not in set(chosen)]
    if unused:
        account.note(f"{len(unused)} of {len(table.columns)} columns are not used: {named(unused)}")
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
        if name not in columns:
            close = get_close_matches(name, columns, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise AutoSpecError(f"dataset.features: the table has no column {name!r}{hint}")


def _usable(
    people: pd.DataFrame, table: pd.DataFrame, account: Account
) -> tuple[pd.DataFrame, npt.NDArray[np.float64]]:
    """The people without a missing value, after columns that say nothing (empty or constant) are left out."""
    values = table.iloc[people["row"]].reset_index(drop=True)
    silent = [str(name) for name in values if values[name].nunique(dropna=True) < 2]
    if silent:
        account.note(f"constant or empty columns are left out: {', '.join(silent)}")
    values = values.drop(columns=silent)
    if values.columns.empty:
        raise AutoSpecError("dataset.features: every chosen column is constant or empty")
    missing = values.isna()
    for row in np.flatnonzero(missing.any(axis=1)):
        account.drop(str(people["id"].iloc[row]), f"no value of {named(values.columns[missing.iloc[row]])}")
    complete = ~missing.any(axis=1)
    if not complete.any():
        raise AutoSpecError(f"nobody has a value in each of {named(values.columns)}")
    account.note(f"{values.shape[1]} features: {named(values.columns)}")
    kept = people[complete].reset_index(drop=True)
    return kept.assign(row=np.arange(len(kept))), values[complete].to_numpy(dtype=np.float64)
