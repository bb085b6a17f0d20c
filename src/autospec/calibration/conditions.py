"""Which studies are made: nulls of several kinds, and effects of several sizes; fixed beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from autospec.calibration.study import ADJUSTED, NO_EFFECT, SHUFFLED, UNEQUAL, Condition
from autospec.config.schema import Task

BALANCED, ONE_TO_THREE = (24, 24), (12, 36)


@dataclass(frozen=True)
class Cell:
    """A condition and what its rows are called."""

    name: str
    condition: Condition


def _named(null: str, sizes: tuple[int, int], task: Task) -> Cell:
    learner = "autoencoder" if task is Task.autoencoding else "classifier"
    return Cell(f"{learner}, {null}", Condition(null, sizes, task))


NULLS = (
    *(_named(null, sizes, Task.autoencoding) for null in (SHUFFLED, NO_EFFECT) for sizes in (BALANCED, ONE_TO_THREE)),
    *(_named(SHUFFLED, sizes, Task.classification) for sizes in (BALANCED, ONE_TO_THREE)),
    _named(ADJUSTED, ONE_TO_THREE, Task.autoencoding),
)
"""Studies in which there is nothing to find."""

CONFOUNDED = (_named(UNEQUAL, BALANCED, Task.autoencoding),)
"""No null of association: the label goes with age and motion, and these with the data."""

POWER = tuple(
    Cell(f"autoencoder, effect {effect:g}", Condition(NO_EFFECT, sizes, effect=effect))
    for sizes in (ONE_TO_THREE, (24, 72))
    for effect in (2.0, 4.0, 8.0)
)
"""Effects are multiples of those of schizophrenia in the simulated cohort; groups are unequal.

A difference of means is symmetric about the scaled data's centre in equal groups, and hardly shows in their spectra.
"""
