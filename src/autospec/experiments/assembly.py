"""What one process of a run trains, put together: samples, network, optimizer, and the recorder that listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autospec.experiments import models
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.parts import optimizer_of, schedule_of, task_of
from autospec.experiments.permutation_design import run_permutations
from autospec.experiments.plan import Plan
from autospec.experiments.training.loop import Training
from autospec.experiments.training.samples import samples_of
from autospec.experiments.training.shards import Shards
from autospec.recording.processes import Processes
from autospec.recording.recorder import SpectralRecorder


def assemble(
    plan: Plan, data: Dataset, device: str, attributes: Mapping[str, Any], place: Processes | None
) -> Training:
    """Put together what a process trains; nothing is written yet.

    Args:
        plan: the run's.
        data: the samples, of which every process holds all.
        device: cpu or cuda.
        attributes: the root attributes of the spectra file.
        place: this process among those that train together; None where it is alone.

    Returns:
        The training before its first epoch; its recorder goes on with the spectra that are there.

    Raises:
        AutoSpecError: for a part or a recording that the configuration names and that cannot be.
    """
    config, introspection = plan.config, plan.config.introspection
    samples = samples_of(data, data.training, device)
    held_out = None if data.training.all() else samples_of(data, ~data.training, device)
    group_sizes, design = data.group_sizes(), run_permutations(config, data)

    model = models.build(config, data.inputs.shape[1:], len(data.classes)).to(device)
    task, optimizer = task_of(config), optimizer_of(config, model)
    schedule = schedule_of(config, optimizer)

    # last: a part that cannot be made must not leave the run's folder behind, which the recorder makes
    recorder = SpectralRecorder(
        model,
        plan.folder.spectra,
        resume=True,
        periodic=False,  # at checkpoints, together with them
        groups=data.groups,
        margins=data.margins,
        statistics=introspection.statistics,
        every=introspection.every,
        epochs=config.epochs,
        layers=introspection.layers,
        engine=introspection.engine,
        floor=introspection.floor,
        reduction="mean" if place is None else "sum",  # of several, each says what its samples count in the mean
        leading=introspection.leading,
        tolerance=introspection.tolerance,
        directions=introspection.directions,
        bins=introspection.bins,
        group_sizes=group_sizes,
        permutation_design=design,
        attributes=attributes,
    )
    shards = None if place is None else Shards(model, place)
    return Training(
        model, task, samples, held_out, recorder, optimizer, schedule, config.batch_size, config.seed, shards
    )
