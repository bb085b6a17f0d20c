"""Which studies are made: nulls of several kinds, and effects of several sizes; fixed beforehand, seeds too."""

from __future__ import annotations

from dataclasses import dataclass

from autospec.experiments.config.schema import Task
from autospec.experiments.validation.kinds import (
    ADJUSTED,
    AGE,
    FOUR_GROUPS,
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
FOUR_EQUAL, FOUR_UNEQUAL = (16, 16, 16, 16), (28, 20, 10, 6)
AUTOENCODER, CLASSIFIER = Task.autoencoding, Task.classification
MILLION = 1_000_000


@dataclass(frozen=True)
class Cell:
    """One cell of the design of the calibration.

    Attributes:
        name: What its rows are called.
        condition: The kind of its studies.
        first_seed: The seed of its first study; those of further studies follow on, and no two cells share one.
    """

    name: str
    condition: Condition
    first_seed: int

    def seeds(self, runs: int) -> range:
        """Return the seeds of its studies where ``runs`` are asked for."""
        return range(self.first_seed, self.first_seed + runs)


def _cells(task: Task, first: int, *kinds: tuple[str, tuple[int, ...]]) -> tuple[Cell, ...]:
    """Cells of one learner, from a number on by which their seeds are told apart."""
    learner = "autoencoder" if task is AUTOENCODER else "classifier"
    return tuple(
        Cell(f"{learner}, {null}", Condition(null, sizes, task), number * MILLION)
        for number, (null, sizes) in enumerate(kinds, start=first)
    )


def _both(*nulls: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(null, sizes) for null in nulls for sizes in (BALANCED, ONE_TO_THREE)]


NULLS = {
    "autoencoder": _cells(AUTOENCODER, 101, *_both(SHUFFLED, NO_EFFECT)),
    "strata": _cells(AUTOENCODER, 141, *((null, BALANCED) for null in (SPREAD, REPEATED, SEXES, VISITS))),
    "joint": (
        *_cells(AUTOENCODER, 181, (FOUR_GROUPS, FOUR_EQUAL), (FOUR_GROUPS, FOUR_UNEQUAL), (AGE, BALANCED)),
        *_cells(CLASSIFIER, 191, (AGE, ONE_TO_THREE)),
    ),
    "retrained": _cells(CLASSIFIER, 121, *_both(RETRAINED)),
    "families": _cells(AUTOENCODER, 131, *_both(ADJUSTED, WITHIN_SEXES)),
    "classifier": _cells(CLASSIFIER, 111, *_both(SHUFFLED, NO_EFFECT)),
    "strata_unequal": _cells(AUTOENCODER, 151, *((null, ONE_TO_THREE) for null in (SPREAD, REPEATED, SEXES))),
}
"""Studies in which there is nothing to find, by the picture that shows them, at most four a picture.

In those of *strata* labels can be exchanged within strata alone: of leverage, number of samples, sex, or subject.
"""

CONFOUNDED = _cells(AUTOENCODER, 161, *_both(UNEQUAL))
"""No null of association: the label goes with age and motion, and these with the data."""

POWER = tuple(
    Cell(f"autoencoder, effect {effect:g}", Condition(NO_EFFECT, sizes, effect=effect), number * MILLION)
    for number, (sizes, effect) in enumerate(
        ((sizes, effect) for sizes in (ONE_TO_THREE, (24, 72)) for effect in (2.0, 4.0, 8.0)), start=171
    )
)
"""Effects are multiples of those of schizophrenia in the simulated cohort; groups are unequal.

A difference of means is symmetric about the scaled data's centre in equal groups, and hardly shows in their spectra.
"""
