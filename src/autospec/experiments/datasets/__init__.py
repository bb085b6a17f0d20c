"""Data sets: one module each, which names its source files and loads them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CustomConfig, DatasetConfig
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.datasets.fingerprint import digest

_MODULES = {
    "mnist": "mnist",
    "sinusoid": "sinusoid",
    "freesurfer": "freesurfer.dataset",
    "cobre_timeseries": "cobre_timeseries",
    "cobre_fnc": "cobre_fnc",
    "cobre_multiscale": "cobre_fnc",
    "cobre_maps": "cobre_maps",
}
_CUSTOM = "custom"


def load(config: DatasetConfig) -> Dataset:
    """Load the data of a configuration, scaled and split.

    Args:
        config: The data set's configuration.

    Returns:
        The data set.

    Raises:
        AutoSpecError: Names the file or key at fault.
    """
    dataset: Dataset = _module(config).load(config)
    return dataset


def check(config: DatasetConfig) -> None:
    """Refuse a value of the configuration that the data set cannot take; cheap, nothing is loaded.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    module = _module(config)
    if hasattr(module, "check"):
        module.check(config)


def fingerprint(config: DatasetConfig) -> str:
    """A digest of everything outside the configuration that decides the data.

    That is the content of the source files, or, where there is none, the version of the simulation.

    Args:
        config: The data set's configuration.

    Returns:
        Sixteen hexadecimal digits.
    """
    module = _module(config)
    if isinstance(config, CustomConfig):
        return module.fingerprint(config)
    sources = module.sources(config)
    return digest(sources, "" if sources else module.SIMULATION)


def _module(config: DatasetConfig) -> Any:
    if isinstance(config, CustomConfig):
        return import_module(f"{__name__}.{_CUSTOM}")
    if config.name not in _MODULES:
        raise AutoSpecError(f"dataset={config.name}: unknown; allowed are {', '.join(_MODULES)}")
    # imported when it is asked for: each brings the packages that read its own files
    return import_module(f"{__name__}.{_MODULES[config.name]}")
