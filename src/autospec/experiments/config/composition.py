"""Composing many jobs cheaply: Hydra composes each distinct choice of groups once, plain values are laid over it."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict


@dataclass(frozen=True)
class _Argument:
    """One ``key=value`` of a job, parsed, and whether it chooses a group."""

    override: Override
    chooses_group: bool


class Composition:
    """The configurations of a sweep's jobs, equal to what Hydra would compose for each.

    Hydra applies plain values after everything that the groups say, so jobs that choose the same groups share all
    that is slow: reading the files and merging them.

    Args:
        loader: Hydra's, which reads the files.
        master: the configuration of the sweep itself.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._arguments: dict[str, _Argument] = {}
        self._composed: dict[tuple[str, ...], bytes] = {}

    def config(self, overrides: Sequence[str]) -> DictConfig:
        """Return the resolved configuration of one job, without Hydra's own part.

        Args:
            overrides: the job's ``key=value``, as on the command line.
        """
        arguments = {text: self._argument(text) for text in overrides}
        choices = tuple(text for text, argument in arguments.items() if argument.chooses_group)
        values = [argument.override for argument in arguments.values() if not argument.chooses_group]
        config = self._of_groups(choices)
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        OmegaConf.resolve(config)
        return config

    def _of_groups(self, choices: tuple[str, ...]) -> DictConfig:
        """What the chosen groups compose to, a new copy for each job; unpickling is the fastest way to copy."""
        if choices not in self._composed:
            config = self._loader.load_sweep_config(self._master, list(choices))
            with open_dict(config):
                del config["hydra"]
            self._composed[choices] = pickle.dumps(config)
        config = pickle.loads(self._composed[choices])  # noqa: S301 (nobody else writes these bytes)
        assert isinstance(config, DictConfig)
        return config

    def _argument(self, text: str) -> _Argument:
        """An argument, parsed once for all jobs that have it."""
        if text not in self._arguments:
            (override,) = self._parser.parse_overrides([text])
            # as Hydra decides it: an existing group, given a name and not a mapping of values
            group = self._loader.repository.group_exists(override.key_or_group)
            self._arguments[text] = _Argument(override, group and not isinstance(override.value(), dict))
        return self._arguments[text]
