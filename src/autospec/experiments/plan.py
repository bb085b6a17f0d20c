"""Where a configuration's run belongs, and whether it is done; cheap, and torch is not imported."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from autospec.errors import DamagedFile
from autospec.experiments import datasets
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.pairs import check_permutation_pairs, pairs_in_front
from autospec.experiments.config.run_id import run_id
from autospec.experiments.config.schema import ExperimentConfig, Shows
from autospec.experiments.datasets.group_names import group_names
from autospec.experiments.runs.folder import RunFolder, run_folder


@dataclass(frozen=True)
class Plan:
    """A checked configuration, the fingerprint of its data and the folder of its run."""

    config: ExperimentConfig
    fingerprint: str
    folder: RunFolder

    @property
    def done(self) -> bool:
        """Whether the run is complete; damaged spectra count as not there, and are set aside when it runs.

        AutoSpecError where the spectra are another run's or of another schema.
        """
        try:
            return self.folder.complete
        except DamagedFile:
            return False


def plan_run(config: DictConfig | ExperimentConfig) -> Plan:
    """The plan of a configuration; AutoSpecError for every value that cannot run."""
    experiment = check_config(config)
    datasets.check(experiment.dataset)
    _check_pairs(experiment)
    fingerprint = datasets.fingerprint(experiment.dataset)
    return Plan(experiment, fingerprint, run_folder(experiment.output_dir, run_id(experiment, fingerprint)))


def _check_pairs(config: ExperimentConfig) -> None:
    """AutoSpecError for a pair that names no group, as far as that can be told without the data."""
    names = group_names(config.dataset)
    if names is None:
        return
    if config.panel.shows is Shows.differences:
        pairs_in_front(config.figure.pairs, names)
    if config.introspection.permutations:
        check_permutation_pairs(config.introspection.permutation_pairs or [], names)
