"""The name of a run: readable, and different wherever the numbers are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from typing import Any

from autospec.experiments.config.schema import (
    NOT_IN_RUN_ID,
    SIMULATION_KEYS,
    SOURCE_KEYS,
    DatasetConfig,
    ExperimentConfig,
)

NUMBERS_VERSION = 1
"""Raised when a change of the program changes what a configuration computes."""


def run_id(config: ExperimentConfig, fingerprint: str) -> str:
    """The name of the run of a configuration on data with a fingerprint.

    The hash covers every value that decides the numbers and differs from the schema's default, so that a key added
    later at its default keeps old names.
    """
    decisive = {key: value for key, value in _differences(config).items() if key not in NOT_IN_RUN_ID}
    ignored = SOURCE_KEYS | (SIMULATION_KEYS if _reads_real_data(config.dataset) else frozenset())
    decisive["dataset"] = {key: value for key, value in _differences(config.dataset).items() if key not in ignored}
    text = json.dumps([NUMBERS_VERSION, decisive, fingerprint], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    parts = (config.dataset.name, config.architecture.value, config.task.value, config.activation.value)
    return "-".join((*parts, f"w{config.width}", digest))


def _reads_real_data(dataset: DatasetConfig) -> bool:
    return any(getattr(dataset, key, None) is not None for key in SOURCE_KEYS)


def _differences(node: Any) -> dict[str, Any]:
    """The values of a configuration node that differ from its schema's defaults."""
    found = {}
    for entry in fields(node):
        value = getattr(node, entry.name)
        if is_dataclass(value):
            nested = _differences(value)
            if nested:
                found[entry.name] = nested
        elif value != _default(entry):
            found[entry.name] = _plain(value)
    return found


def _default(entry: Field[Any]) -> Any:
    if entry.default_factory is not NO_DEFAULT:
        return entry.default_factory()
    return entry.default


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
