"""A data set of one's own: a function makes the arrays, the configuration says what is learned and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CustomConfig
from autospec.experiments.config.targets import TARGET, make
from autospec.experiments.datasets.dataset import Dataset, hold_out
from autospec.experiments.datasets.labels import cross, unite, unusable_label
from autospec.experiments.datasets.scaling import check_scaling, scale

Texts = npt.NDArray[np.str_]


def check(config: CustomConfig) -> None:
    """Refuse a value that a data set of one's own cannot take; nothing is loaded.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    check_scaling(config.scaling)
    if config.path is not None:
        raise AutoSpecError(f"dataset.path={config.path}: give it to the function, +dataset.options.path=...")
    if not all(part.isidentifier() for part in config.name.split("_")):
        raise AutoSpecError(f"dataset.name={config.name}: letters, digits and underscores, since it names runs")


def fingerprint(config: CustomConfig) -> str:
    """A digest of everything that the function returned: its content decides the numbers, whatever it was read from.

    Args:
        config: The data set's configuration.

    Returns:
        Sixteen hexadecimal digits.

    Raises:
        AutoSpecError: As ``load``.
    """
    inputs, columns, subjects, source, simulated = _made(config)
    total = hashlib.sha256(json.dumps([inputs.shape, source, simulated, sorted(columns)]).encode())
    for part in (inputs, *(columns[name] for name in sorted(columns)), subjects):
        total.update(np.ascontiguousarray(part).tobytes())
    return total.hexdigest()[:16]


def load(config: CustomConfig) -> Dataset:
    """Load what the function returns, with the configuration's target, groups, scaling and held-out subjects.

    Args:
        config: The data set's configuration.

    Returns:
        The data set; with several columns to group by, their crossed groups, and each label as a margin.

    Raises:
        AutoSpecError: Names the key, or what the function should return.
    """
    check(config)
    inputs, columns, subjects, source, simulated = _made(config)
    for key, names in (("target", [config.target]), ("group_by", config.group_by)):
        for name in names:
            if name not in columns:
                raise AutoSpecError(f"dataset.{key}={name}: {config.name} has the columns {', '.join(columns)}")
    classes = sorted(set(columns[config.target].tolist()))
    groups, margins = _groups([columns[name] for name in config.group_by])
    crossed = ["/".join(labels) for labels in zip(*(columns[name] for name in config.group_by), strict=True)]
    training = hold_out(subjects.tolist(), crossed, config.holdout, config.holdout_seed)
    scaled = scale(inputs, config.scaling, training)
    return Dataset(
        inputs=scaled.inputs,
        target=np.array([classes.index(label) for label in columns[config.target]], dtype=np.int64),
        classes=tuple(classes),
        group=np.array([groups.index(label) for label in crossed], dtype=np.int64),
        groups=tuple(groups),
        subjects=tuple(subjects.tolist()),
        training=training,
        source=source,
        simulated=simulated,
        margins=margins,
        scaling=scaled.fitted,
        columns={name: tuple(values.tolist()) for name, values in columns.items()},
    )


def _groups(columns: Sequence[Texts]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The crossed groups that occur, and each label of several columns with the groups that it unites."""
    levels = [sorted(set(column.tolist())) for column in columns]
    empty = "" if any("" in of_column for of_column in levels) else None
    name = empty if empty is not None else unusable_label(levels)
    if name is not None:
        raise AutoSpecError(
            f"dataset.group_by: the label {name!r} cannot name a group (it is empty, reserved, has a slash or "
            "stands in two columns)"
        )
    cells = cross(levels, ("/".join(labels) for labels in zip(*(column.tolist() for column in columns), strict=True)))
    return cells, unite(levels, cells)


def _made(config: CustomConfig) -> tuple[npt.NDArray[np.float32], dict[str, Texts], Texts, str, bool]:
    """What the function returns, checked; called once for a configuration."""
    # as text: a cache takes arguments that can be hashed
    return _made_once(json.dumps(asdict(config)["options"], sort_keys=True, default=str), config._target_)


@cache
def _made_once(options: str, target: str) -> tuple[npt.NDArray[np.float32], dict[str, Texts], Texts, str, bool]:
    made = make("dataset", {TARGET: target, **json.loads(options)})
    returned = f"dataset.{TARGET}={target}"
    if not isinstance(made, Mapping) or not {"inputs", "columns"} <= set(made):
        raise AutoSpecError(f"{returned}: must return a mapping with 'inputs' (n, ...) and 'columns' of n labels each")
    if unknown := sorted(set(made) - {"inputs", "columns", "subjects", "source", "simulated"}):
        raise AutoSpecError(f"{returned}: returned {unknown[0]!r}, which nothing takes")
    inputs = np.asarray(made["inputs"], dtype=np.float32)
    if inputs.ndim < 2 or not len(inputs) or not np.isfinite(inputs).all():
        raise AutoSpecError(f"{returned}: inputs {inputs.shape} must be (n, ...) finite numbers")
    columns = {str(name): _texts(f"{returned}: column {name!r}", v, len(inputs)) for name, v in made["columns"].items()}
    numbered = [f"sample-{number:05d}" for number in range(1, len(inputs) + 1)]
    subjects = _texts(f"{returned}: subjects", made.get("subjects", numbered), len(inputs))
    return inputs, columns, subjects, str(made.get("source", target)), bool(made.get("simulated", False))


def _texts(what: str, values: Any, samples: int) -> Texts:
    """Labels as text, one a sample."""
    texts = np.array([str(value) for value in values])
    if len(texts) != samples:
        raise AutoSpecError(f"{what} has {len(texts)} values for {samples} samples")
    return texts
