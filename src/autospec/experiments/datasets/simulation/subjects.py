"""The subjects of a simulated cohort."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CohortConfig, CovariateConfig

YEARS_PER_DECADE = 10

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SimulatedSubjects:
    """A phenotype table, and what acts on the data: (n,) vectors.

    ``diagnosis`` is ``dataset.effect`` for a patient and 0 for a control, ``sex`` +½ for men and -½ for women, ``age``
    in decades and ``motion`` in SD from their configured means.
    """

    table: pd.DataFrame
    diagnosis: Vector
    sex: Vector
    age: Vector
    motion: Vector

    def __len__(self) -> int:
        return len(self.table)


def generators(config: CohortConfig, parts: int) -> list[np.random.Generator]:
    """Independent random streams of ``dataset.seed``, one per part, so that the parts do not move one another.

    Args:
        config: The data set's configuration.
        parts: How many.

    Returns:
        The streams.
    """
    return np.random.default_rng(config.seed).spawn(parts)


def simulate_subjects(config: CohortConfig, random: np.random.Generator) -> SimulatedSubjects:
    """The subjects that ``dataset.people`` asks for, in random order.

    Args:
        config: The data set's configuration.
        random: The random stream.

    Returns:
        The subjects.

    Raises:
        AutoSpecError: They cannot be simulated.
    """
    check_subjects(config)
    cells = _cells(config)
    order = random.permutation(len(cells))
    diagnosis = np.array([cells[index][0] for index in order])
    sex = np.array([cells[index][1] for index in order])
    patient = (diagnosis == "SZ").astype(np.float64)
    age = _drawn(config.age, patient, random)
    motion = _drawn(config.motion, patient, random)
    table = pd.DataFrame({
        "id": [f"sim-{number:04d}" for number in range(1, len(cells) + 1)],
        "row": np.arange(len(cells)),
        "diagnosis": diagnosis,
        "sex": sex,
        "age": age,
        "motion": motion,
    })  # fmt: skip
    return SimulatedSubjects(
        table=table,
        diagnosis=config.effect * patient,
        sex=np.where(sex == "men", 0.5, -0.5),
        age=(age - config.age.mean) / YEARS_PER_DECADE,
        motion=(motion - config.motion.mean) / config.motion.sd,
    )


def check_subjects(config: CohortConfig) -> None:
    """Refuse subjects or covariates that cannot be simulated.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    check_finite(config)
    _cells(config)
    for key, covariate in (("age", config.age), ("motion", config.motion)):
        if covariate.sd <= 0 or covariate.low >= covariate.high:
            raise AutoSpecError(f"dataset.{key}: sd must be above 0 and low below high, not {covariate}")


def check_finite(config: object, key: str = "dataset") -> None:
    """Refuse a number of the configuration, at any depth, that is NaN or infinite.

    Args:
        config: A node of the configuration.
        key: Its place, for the message.

    Raises:
        AutoSpecError: Names the key.
    """
    if is_dataclass(config):
        values = {one.name: getattr(config, one.name) for one in fields(config)}
    else:
        values = dict(config) if isinstance(config, Mapping) else {}
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise AutoSpecError(f"{key}.{name}={value}: must be a finite number")
        check_finite(value, f"{key}.{name}")


def check_keys(key: str, given: Mapping[str, object], allowed: Collection[str]) -> None:
    """Refuse a key of a mapping of effects that nothing answers to.

    Args:
        key: The mapping's place in the configuration.
        given: The mapping.
        allowed: Keys that it may have.

    Raises:
        AutoSpecError: Names the allowed ones.
    """
    unknown = [name for name in given if name not in allowed]
    if unknown:
        raise AutoSpecError(f"dataset.{key}.{unknown[0]}: unknown; allowed are {', '.join(sorted(allowed))}")


def _cells(config: CohortConfig) -> list[tuple[str, str]]:
    """The diagnosis and sex of every subject, cell after cell."""
    cells: list[tuple[str, str]] = []
    for diagnosis, sex in product(("HC", "SZ"), ("men", "women")):
        count: int = getattr(getattr(config.people, diagnosis), sex)
        if count < 0:
            raise AutoSpecError(f"dataset.people.{diagnosis}.{sex}={count}: must be 0 or more")
        cells += [(diagnosis, sex)] * count
    if not cells:
        raise AutoSpecError("dataset.people: a cohort needs a subject")
    return cells


def _drawn(covariate: CovariateConfig, patient: Vector, random: np.random.Generator) -> Vector:
    """A covariate of every subject, its bounds kept by clipping."""
    values = covariate.mean + covariate.sd * (random.standard_normal(len(patient)) + covariate.shift * patient)
    return np.clip(values, covariate.low, covariate.high)
