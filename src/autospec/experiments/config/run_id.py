"""The name of a run: readable, and different wherever the numbers are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from typing import Any

from autospec.experiments.config.schema import (
    INTROSPECTION_NOT_IN_RUN_ID,
    NOT_IN_RUN_ID,
    SIMULATION_KEYS,
    SOURCE_KEYS,
    DatasetConfig,
    ExperimentConfig,
)
from autospec.experiments.config.targets import TARGET, own_code, short_name

NUMBERS_VERSION = 1
"""Raised when a change of the program changes what a configuration computes."""


def run_id(config: ExperimentConfig, fingerprint: str) -> str:
    """Return the name of the run of a configuration on some data.

    The hash covers every value that decides the numbers and differs from the schema's default, so that a key added
    later at its default keeps old names.

    Args:
        config: the run's configuration, every key with a value.
        fingerprint: of the data's content, labels and the subjects that are selected.

    Returns:
        ``dataset-architecture-task-activation-w<width>-<ten hexadecimal digits>``.
    """
    decisive = {key: value for key, value in _differences(config).items() if key not in NOT_IN_RUN_ID}
    introspection = _differences(config.introspection)
    own = {key: value for key, value in introspection.items() if key not in INTROSPECTION_NOT_IN_RUN_ID}
    decisive = {key: value for key, value in decisive.items() if key != "introspection"}
    decisive |= {"introspection": own} if own else {}
    ignored = SOURCE_KEYS | (SIMULATION_KEYS if _reads_real_data(config.dataset) else frozenset())
    decisive["dataset"] = {key: value for key, value in _differences(config.dataset).items() if key not in ignored}
    code = own_code([*config.extensions, *(node[TARGET] for node in _targets(config))])
    # no code, no entry: runs from before own parts could be named keep their names
    text = json.dumps([NUMBERS_VERSION, decisive, fingerprint, *([code] if code else [])], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    parts = (
        config.dataset.name,
        short_name(config.network) if config.network else config.architecture.value,
        config.task.value,
        short_name(config.nonlinearity) if config.nonlinearity else config.activation.value,
    )
    return "-".join((*parts, f"w{config.width}", digest))


def _targets(config: ExperimentConfig) -> list[dict[str, Any]]:
    """The parts that somebody else wrote."""
    nodes = (config.network, config.nonlinearity, config.loss, config.optimizer, config.schedule)
    return [node for node in nodes if node]


def _reads_real_data(dataset: DatasetConfig) -> bool:
    """Whether any key names files; else the data are embedded or simulated."""
    return any(getattr(dataset, key, None) is not None for key in SOURCE_KEYS)


def _differences(node: Any) -> dict[str, Any]:
    """The values of a configuration node that differ from its schema's defaults."""
    differences: dict[str, Any] = {}
    for entry in fields(node):
        value = getattr(node, entry.name)
        if is_dataclass(value):
            nested = _differences(value)
            if nested:
                differences[entry.name] = nested
        elif value != _default(entry):
            differences[entry.name] = _plain(value)
    return differences


def _default(entry: Field[Any]) -> Any:
    """The schema's value of a key."""
    if entry.default_factory is not NO_DEFAULT:
        return entry.default_factory()
    return entry.default


def _plain(value: Any) -> Any:
    """A value as JSON takes it."""
    return value.value if isinstance(value, Enum) else value
