"""A network trained without a folder: its spectra stay in memory."""

from __future__ import annotations

import torch

from autospec.experiments import datasets, models
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.launch.console import quietly
from autospec.experiments.permutation_design import run_permutations
from autospec.experiments.training.loop import Training
from autospec.experiments.training.samples import Samples
from autospec.experiments.training.tasks import TASKS
from autospec.recording.recorder import SpectralRecorder
from autospec.store.read import Spectra


def load_quietly(config: ExperimentConfig) -> Dataset:
    """Load a run's data without the account of its cohort, which hundreds of studies do not need.

    Args:
        config: The run's configuration.

    Returns:
        The data.
    """
    with quietly(datasets.__name__):
        return datasets.load(config.dataset)


def record_run(config: ExperimentConfig, data: Dataset) -> Spectra:
    """Train the network of a configuration and record it, with the permutations that it asks for.

    Args:
        config: The run's configuration.
        data: Its data.

    Returns:
        The spectra, in memory.
    """
    model = models.build(config, data.inputs.shape[1:], len(data.classes))
    with (
        quietly("autospec.recording", "autospec.capture"),
        SpectralRecorder(
            model,
            groups=data.groups,
            margins=data.margins,
            group_sizes=data.group_sizes(),
            every=config.introspection.every,
            epochs=config.epochs,
            permutation_design=run_permutations(config, data),
        ) as recorder,
    ):
        samples = Samples(*(torch.from_numpy(values) for values in (data.inputs, data.target, data.group)))
        task, optimizer = TASKS[config.task], torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        training = Training(model, task, samples, None, recorder, optimizer, None, None, config.seed)
        for _ in training.epochs_until(config.epochs):
            pass
    return recorder.spectra
