"""Time-courses of the NeuroMark components: a prepared cohort, or a simulated one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.phenotype import keep_complete
from autospec.cohorts.prepared_file import find_prepared, read_prepared
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CobreTimeseriesConfig
from autospec.experiments.datasets.cohort import build_cohort, build_dataset, check_cohort, refuse_columns
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.datasets.harmonization import refuse_harmonize
from autospec.experiments.datasets.residuals import residualize_connectivity
from autospec.experiments.datasets.simulation.subjects import check_subjects, generators, simulate_subjects
from autospec.experiments.datasets.simulation.timecourses import changes, simulate_timecourses
from autospec.experiments.datasets.visits import join_visits, visit_ids

SIMULATION = "cobre_timeseries 1"
"""Raised when the same configuration gives other numbers."""

log = logging.getLogger(__name__)


def sources(config: CobreTimeseriesConfig) -> list[Path]:
    """The prepared cohort; no file where it is simulated.

    Args:
        config: The data set's configuration.

    Returns:
        The files in a fixed order.

    Raises:
        AutoSpecError: A file is not there, or keys contradict each other.
    """
    return [] if config.path is None else [find_prepared(Path(config.path))]


def check(config: CobreTimeseriesConfig) -> None:
    """Refuse a value that the time-courses cannot have.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    check_cohort(config)
    refuse_harmonize(config)
    refuse_columns(config, "dataset.path" if config.path is not None else None)
    if config.time_points is not None and config.time_points < 2:
        raise AutoSpecError(f"dataset.time_points={config.time_points}: must be 2 or more, or null for all")
    if config.path is None:
        check_subjects(config)
        changes(config)


def load(config: CobreTimeseriesConfig) -> Dataset:
    """Load the time-courses of every subject with a phenotype and complete data.

    Args:
        config: The data set's configuration.

    Returns:
        Time-courses (n, time, components).

    Raises:
        AutoSpecError: Names the file or key at fault.
    """
    check(config)
    account = Account()
    subjects, data, source, simulated = read_timecourses(config, account)
    cohort = build_cohort(subjects, config, account)
    account.log(log)
    return build_dataset(cohort, data[cohort.row], config, account, source, simulated, adjust=residualize_connectivity)


def read_timecourses(config: CobreTimeseriesConfig, account: Account) -> tuple[pd.DataFrame, npt.NDArray, str, bool]:
    """Read or simulate the time-courses of a cohort.

    Args:
        config: The data set's configuration.
        account: Takes a line for every subject left out.

    Returns:
        The subjects, whose ``row`` indexes the time-courses (n, time, components), where they come from, and whether
        they are simulated.

    Raises:
        AutoSpecError: Names what is wrong with the file.
    """
    if config.path is not None:
        return _read_prepared(find_prepared(Path(config.path)), config, account)
    who, what = generators(config, 2)
    simulation = simulate_subjects(config, who)
    account.note(f"simulated: {len(simulation)} subjects, effect {config.effect:g}")
    data = simulate_timecourses(config, simulation, what)
    return simulation.table, data, "simulated time-courses of 53 NeuroMark components", True


def _read_prepared(
    file: Path, config: CobreTimeseriesConfig, account: Account
) -> tuple[pd.DataFrame, npt.NDArray, str, bool]:
    prepared = read_prepared(file, "timecourses")
    time_points = prepared.data.shape[1]
    if config.time_points is not None and config.time_points > time_points:
        raise AutoSpecError(
            f"dataset.time_points={config.time_points}: {file} holds {time_points}; "
            "dataset.time_points=null takes all (preset=quick may have set it)"
        )
    if config.time_points is not None and config.time_points < time_points:
        account.note(f"the first {config.time_points} of {time_points} volumes are used: dataset.time_points")
    data = prepared.data[:, : config.time_points]
    if config.session == "average":
        raise AutoSpecError("dataset.session=average: time-courses of two sessions share no time axis; choose one")
    subjects, visits = join_visits(prepared.subjects, visit_ids(prepared.subjects), config, account, file.name)
    subjects = subjects.assign(row=[visits[row].rows[0] for row in subjects["row"]])
    subjects = _with_varying_data(keep_complete(subjects, data, account, file.name), data, account, file.name)
    return subjects, data, prepared.source, prepared.simulated


def _with_varying_data(subjects: pd.DataFrame, data: npt.NDArray, account: Account, source: str) -> pd.DataFrame:
    """The subjects all of whose components vary over time; the account names the others."""
    # a constant has no z-score, and goes with nothing
    still = np.ptp(data[subjects["row"]], axis=1) == 0
    for subject, constant in zip(subjects["id"], still, strict=True):
        if constant.any():
            components = list_names(str(index + 1) for index in np.flatnonzero(constant))
            account.drop(subject, f"component {components} (from 1) is constant in {source}")
    if still.any(axis=1).all():
        raise AutoSpecError(f"{source}: every subject has a component that is constant over time")
    return subjects[~still.any(axis=1)].reset_index(drop=True)
