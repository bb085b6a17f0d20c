"""Many small cohorts dealt from one large simulated cohort, nobody in two of them: simulating one costs as much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from autospec.experiments import datasets
from autospec.experiments.config.schema import CohortConfig, PeopleConfig, SexesConfig
from autospec.experiments.datasets.dataset import LEVERAGE, Dataset
from autospec.experiments.datasets.residuals import leverage_quarters, residualize
from autospec.experiments.datasets.scaling import scale
from autospec.experiments.launch.console import quietly

CELL = ("diagnosis", "sex")
"""The columns by which the subjects of a cohort are counted."""


def deal_cohorts(config: CohortConfig, number: int) -> Iterator[Dataset]:
    """Make cohorts as a configuration describes them, of subjects that are simulated at once.

    What is fitted (covariates taken out, scaling) is fitted in each cohort by itself, as where it was loaded alone.

    Args:
        config: The data set's configuration; its covariates are numbers.
        number: How many cohorts.

    Yields:
        A cohort with the numbers of subjects that ``dataset.people`` asks for.
    """
    many = replace(config, people=_times(config.people, number), scaling="none", residualize=[])
    with quietly(datasets.__name__):
        whole = datasets.load(many)
    labels = np.array([" ".join(label) for label in zip(*(whole.columns[name] for name in CELL), strict=True)])
    # of each label as many for every cohort, in the order in which they were simulated
    dealt = [np.flatnonzero(labels == label).reshape(number, -1) for label in np.unique(labels)]
    for place in range(number):
        yield _fitted(_some(whole, np.sort(np.concatenate([own[place] for own in dealt]))), config)


def _times(people: PeopleConfig, number: int) -> PeopleConfig:
    return PeopleConfig(
        **{
            name: SexesConfig(men=number * sexes.men, women=number * sexes.women)
            for name, sexes in (("HC", people.HC), ("SZ", people.SZ))
        }
    )


def _some(data: Dataset, rows: npt.NDArray[np.int64]) -> Dataset:
    """Some subjects of a data set."""
    return replace(
        data,
        inputs=data.inputs[rows],
        target=data.target[rows],
        group=data.group[rows],
        training=data.training[rows],
        subjects=tuple(data.subjects[row] for row in rows),
        columns={name: tuple(values[row] for row in rows) for name, values in data.columns.items()},
    )


def _fitted(data: Dataset, config: CohortConfig) -> Dataset:
    """The same with covariates taken out and values scaled, as ``build_dataset`` does both."""
    inputs, columns = data.inputs.astype(np.float64), dict(data.columns)
    if config.residualize:
        covariates = np.column_stack([np.array(data.columns[name], dtype=np.float64) for name in config.residualize])
        inputs, _ = residualize(inputs, covariates, data.training, equal_leverage=config.equal_leverage)
        columns[LEVERAGE] = leverage_quarters(covariates, data.training)
    return replace(data, inputs=scale(inputs, config.scaling, data.training).inputs, columns=columns)
