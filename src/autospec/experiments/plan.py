"""Where a configuration's run belongs, and whether it is done; cheap, and torch is not imported."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from autospec.experiments import datasets
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.pairs import check_pairs
from autospec.experiments.config.run_id import run_id
from autospec.experiments.config.schema import ExperimentConfig
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

        Raises:
            AutoSpecError: where the spectra are another run's or of another schema.
        """
        return self.folder.done

    @property
    def to_run(self) -> bool:
        """Whether there is something to do: the run is not complete, or it is to be made anew (``overwrite``)."""
        return not self.done or self.config.overwrite


def plan_run(config: DictConfig | ExperimentConfig) -> Plan:
    """Check a configuration and find its run; nothing is written and torch is not imported.

    Args:
        config: as Hydra composes it, or typed already.

    Returns:
        The checked configuration, its data's fingerprint and its run's folder, which need not exist.

    Raises:
        AutoSpecError: for every value that cannot run, one line each.
    """
    experiment = check_config(config)
    # first what costs nothing: the fingerprint reads every source file
    datasets.check(experiment.dataset)
    check_pairs(experiment)
    fingerprint = datasets.fingerprint(experiment.dataset)
    return Plan(experiment, fingerprint, run_folder(experiment.output_dir, run_id(experiment, fingerprint)))
