"""Data without a difference whose labels cannot all be exchanged with one another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from autospec.experiments.datasets.dataset import LEVERAGE, Dataset, Float32s
from autospec.experiments.datasets.residuals import leverage_quarters, residualize

COVARIATES, SPREAD = 3, 2.5
"""How many covariates are taken out, and their SD in the second group, where it is 1 in the first."""
TIMES = 3
"""Samples of those subjects who have several."""
OFTEN = (0.25, 0.75)
"""The share of each group's subjects who have several samples."""
NOISE = 0.7
"""SD of what a sample has of its own, where a subject's values have an SD of 1."""


def covariates_taken_out(data: Dataset, random: np.random.Generator) -> Dataset:
    """Take out covariates that say nothing of the data, of larger spread in the second group.

    Args:
        data: Subjects of two groups, one sample each.
        random: Draws the covariates.

    Returns:
        The same subjects with the residuals, standardised again.
    """
    covariates = random.standard_normal((len(data.inputs), COVARIATES)) * np.where(data.group == 1, SPREAD, 1)[:, None]
    left, _ = residualize(data.inputs, covariates, data.training)
    columns = {**data.columns, LEVERAGE: leverage_quarters(covariates, data.training)}
    return replace(data, inputs=_standardise(left), columns=columns)


def several_samples(data: Dataset, random: np.random.Generator) -> Dataset:
    """Give some subjects several samples, more of them in the second group.

    Args:
        data: Subjects of two groups, one sample each.
        random: Chooses the subjects and draws what each sample has of its own.

    Returns:
        The samples, each under its subject's name.
    """
    several = random.random(len(data.inputs)) < np.array(OFTEN)[data.group]
    whose = np.repeat(np.arange(len(data.inputs)), np.where(several, TIMES, 1))
    return _of(data, whose, data.group[whose], random)


def two_visits(data: Dataset, random: np.random.Generator) -> Dataset:
    """Take half of the subjects at two visits, which are the groups.

    Args:
        data: Subjects of two groups, one sample each.
        random: Draws what each visit has of its own.

    Returns:
        As many samples as there were subjects.
    """
    half = len(data.inputs) // 2
    whose = np.concatenate([np.arange(half)] * 2)
    return _of(data, whose, np.repeat([0, 1], half), random)


def _of(
    data: Dataset, whose: npt.NDArray[np.int64], group: npt.NDArray[np.int64], random: np.random.Generator
) -> Dataset:
    """Samples of some subjects, each with noise of its own."""
    inputs = data.inputs[whose]
    return replace(
        data,
        inputs=_standardise(inputs + NOISE * random.standard_normal(inputs.shape)),
        target=data.target[whose],
        group=group,
        training=np.ones(len(whose), dtype=bool),
        subjects=tuple(data.subjects[place] for place in whose),
        columns={name: tuple(values[place] for place in whose) for name, values in data.columns.items()},
    )


def _standardise(values: npt.NDArray) -> Float32s:
    return ((values - values.mean(axis=0)) / values.std(axis=0)).astype(np.float32)
