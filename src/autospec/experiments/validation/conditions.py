"""Which studies are made: nulls of several kinds, and effects of several sizes; fixed beforehand, seeds too."""

from __future__ import annotations

from dataclasses import dataclass

from autospec.experiments.config.schema import Task
from autospec.experiments.validation.study import (
    ADJUSTED,
    NO_EFFECT,
    REPEATED,
    RETRAINED,
    SEXES,
    SHUFFLED,
    SPREAD,
    UNEQUAL,
    VISITS,
    WITHIN_SEXES,
    Condition,
)

BALANCED, ONE_TO_THREE = (24, 24), (12, 36)
AUTOENCODER, CLASSIFIER = Task.autoencoding, Task.classification
MILLION = 1_000_000


@dataclass(frozen=True)
class Cell:
    """One cell of the design of the calibration.

    Attributes:
        name: What its rows are called.
        condition: The kind of its studies.
        first_seed: The seed of its first study; those of further studies follow on, and no two cells share one.
        times: How many times as many studies it has as others.
    """

    name: str
    condition: Condition
    first_seed: int
    times: int = 1

    def seeds(self, runs: int) -> range:
        """Return the seeds of its studies where ``runs`` are asked for."""
        return range(self.first_seed, self.first_seed + self.times * runs)


def _null(null: str, sizes: tuple[int, int], task: Task, number: int, times: int = 1) -> Cell:
    learner = "autoencoder" if task is AUTOENCODER else "classifier"
    again = ", again" * (times > 1)
    return Cell(f"{learner}, {null}{again}", Condition(null, sizes, task), number * MILLION, times)


NULLS = (
    _null(SHUFFLED, BALANCED, AUTOENCODER, 1),
    _null(SHUFFLED, ONE_TO_THREE, AUTOENCODER, 2),
    _null(NO_EFFECT, BALANCED, AUTOENCODER, 3),
    _null(NO_EFFECT, ONE_TO_THREE, AUTOENCODER, 4),
    _null(ADJUSTED, BALANCED, AUTOENCODER, 17),
    _null(ADJUSTED, ONE_TO_THREE, AUTOENCODER, 7),
    _null(WITHIN_SEXES, BALANCED, AUTOENCODER, 25),
    _null(WITHIN_SEXES, ONE_TO_THREE, AUTOENCODER, 26),
    _null(SHUFFLED, BALANCED, CLASSIFIER, 5),
    # the same again with other seeds: of many intervals some miss by chance, and a larger sample tells
    _null(SHUFFLED, BALANCED, CLASSIFIER, 21, times=3),
    _null(SHUFFLED, ONE_TO_THREE, CLASSIFIER, 6),
    _null(NO_EFFECT, BALANCED, CLASSIFIER, 15),
    _null(NO_EFFECT, ONE_TO_THREE, CLASSIFIER, 16),
    _null(RETRAINED, BALANCED, CLASSIFIER, 19),
    _null(RETRAINED, ONE_TO_THREE, CLASSIFIER, 20),
)
"""Studies in which there is nothing to find."""

SITUATIONS = (
    _null(SPREAD, BALANCED, AUTOENCODER, 40),
    _null(REPEATED, BALANCED, AUTOENCODER, 41),
    _null(SEXES, BALANCED, AUTOENCODER, 42),
    _null(VISITS, BALANCED, AUTOENCODER, 43),
)
"""Likewise, where labels can be exchanged within strata alone: of leverage, number of samples, sex, or subject."""

CONFOUNDED = (_null(UNEQUAL, BALANCED, AUTOENCODER, 8), _null(UNEQUAL, ONE_TO_THREE, AUTOENCODER, 18))
"""No null of association: the label goes with age and motion, and these with the data."""

POWER = tuple(
    Cell(f"autoencoder, effect {effect:g}", Condition(NO_EFFECT, sizes, effect=effect), number * MILLION)
    for number, (sizes, effect) in enumerate(
        ((sizes, effect) for sizes in (ONE_TO_THREE, (24, 72)) for effect in (2.0, 4.0, 8.0)), start=9
    )
)
"""Effects are multiples of those of schizophrenia in the simulated cohort; groups are unequal.

A difference of means is symmetric about the scaled data's centre in equal groups, and hardly shows in their spectra.
"""
