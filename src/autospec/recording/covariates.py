"""Covariates of subjects as a user gives them: a number of each, by name or sample by sample; mistakes in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autospec.analysis.joint_relabelling import check_covariate
from autospec.errors import AutoSpecError

SubjectName = str | int


def checked_covariates(
    covariates: Mapping[str, Any] | None, subjects: Sequence[SubjectName] | None
) -> dict[str, dict[SubjectName, float]]:
    """Return every covariate by subject.

    Args:
        covariates: By name the value of each subject, ``{subject: value}``, or of each sample beside ``subjects``.
        subjects: Whose each sample of the data set is.

    Returns:
        By name the number of each subject.

    Raises:
        AutoSpecError: A value is no finite number, a subject has two, or they are not by subject.
    """
    found = {}
    for name, values in (covariates or {}).items():
        by_subject = dict(values) if isinstance(values, Mapping) else _by_subject(name, values, subjects)
        found[name] = {subject: _number(name, value, subject) for subject, value in by_subject.items()}
        check_covariate(name, found[name])
    return found


def covariate_of(
    name: str, of_subject: Mapping[SubjectName, float], subjects: Sequence[SubjectName]
) -> npt.NDArray[np.float64]:
    """Return the values of a covariate in the order of subjects; AutoSpecError where one has none."""
    missing = [subject for subject in subjects if subject not in of_subject]
    if missing:
        raise AutoSpecError(f"covariate {name!r} has no value for subject {missing[0]!r}")
    return np.array([of_subject[subject] for subject in subjects], dtype=np.float64)


def _by_subject(name: str, values: Any, subjects: Sequence[SubjectName] | None) -> dict[SubjectName, Any]:
    """One value a sample as one a subject."""
    if subjects is None:
        raise AutoSpecError(
            f"covariate {name!r} must say the value of each subject by name, {{subject: value}}; one for each sample "
            "needs subjects= as well"
        )
    of_samples = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(of_samples) != len(subjects):
        raise AutoSpecError(
            f"covariate {name!r} has {len(of_samples)} values, but subjects has {len(subjects)} samples"
        )
    found: dict[SubjectName, Any] = {}
    for subject, value in zip(subjects, of_samples, strict=True):
        if found.setdefault(subject, value) != value and not (value != value and found[subject] != found[subject]):
            raise AutoSpecError(
                f"covariate {name!r} has two values for subject {subject!r}, {found[subject]} and {value}; it is "
                "permuted over subjects, so each has one, not one a sample"
            )
    return found


def _number(name: str, value: Any, subject: SubjectName) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise AutoSpecError(
            f"covariate {name!r} is {value!r} for subject {subject!r}: a number is needed; labels are groups"
        ) from error
