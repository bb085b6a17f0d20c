"""One run from its plan to its spectra: data, network, task, recorder, training, result."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from autospec.experiments import datasets, models
from autospec.experiments.config.checks import as_yaml
from autospec.experiments.config.pairs import check_pairs
from autospec.experiments.config.targets import load_extensions
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.launch.ranks import other_ranks
from autospec.experiments.parts import optimizer_of, schedule_of, task_of
from autospec.experiments.permutation_design import run_permutations
from autospec.experiments.plan import Plan
from autospec.experiments.runs.checkpoint import Checkpoints
from autospec.experiments.runs.folder import lock_run
from autospec.experiments.runs.log import log_run
from autospec.experiments.runs.provenance import Provenance
from autospec.experiments.runs.session import resume, share_state, train_to_end, write_description
from autospec.experiments.runs.spectra import set_damaged_spectra_aside, spectra_attributes
from autospec.experiments.training.devices import device_name, gpu_name, make_deterministic, name_memory_shortage
from autospec.experiments.training.loop import Training
from autospec.experiments.training.samples import samples_of
from autospec.experiments.training.shards import Shards
from autospec.recording.processes import Processes
from autospec.recording.recorder import SpectralRecorder

log = logging.getLogger(__name__)


def run(plan: Plan, command: str = "", keep_mistakes: bool = False) -> None:
    """Make the run of a plan, or go on with it from its checkpoint.

    Args:
        plan: what to run, and in which folder.
        command: the command line that makes this run again, for its provenance.
        keep_mistakes: log even a mistake that is found before anything is written, which otherwise leaves nothing
            behind; for jobs that nobody watches.

    Raises:
        AutoSpecError: for whatever a user can mend; what was recorded until then stays.
    """
    folder, config = plan.folder, plan.config
    # the lock comes first: who does not hold it must not write into the log of who does
    with lock_run(folder), log_run(folder, keep_mistakes), make_deterministic(config.threads), name_memory_shortage():
        device = device_name(config.device)
        was_done = folder.done
        if was_done and not config.overwrite:  # another process has ended it since it was planned
            log.info("%s is complete; nothing to do", folder.run_id)
            return

        data = datasets.load(config.dataset)
        check_pairs(config, [*data.groups, *data.margins])  # only now are all names there
        set_damaged_spectra_aside(folder, config)  # before the recorder, which goes on with what is there
        processes, description = config.processes, as_yaml(config)
        provenance = Provenance(
            folder.run_id, plan.fingerprint, device, config.threads, gpu_name(device), processes=processes
        )
        with other_ranks(processes, device, partial(train_rank, plan, description, provenance)) as place:
            training = _training(plan, data, description, provenance, place)
            checkpoints = Checkpoints(folder, config.checkpoint_s)
            if was_done:
                log.info("%s was complete and is made anew (overwrite=true)", folder.run_id)
                checkpoints.remove()
            changes = resume(folder, training, checkpoints, provenance, config.accept_changes)
            share_state(training, place, checkpoints.loaded)
            # before the first epoch: a run that is killed must have said what it was
            provenance.begin(command, training.epoch, changes)
            write_description(folder, description, data, provenance)
            train_to_end(folder, training, config.epochs, checkpoints, provenance)


def train_rank(plan: Plan, description: str, provenance: Provenance, place: Processes) -> None:
    """Train beside the process that was launched, which alone writes and logs."""
    load_extensions(plan.config.extensions)
    with make_deterministic(plan.config.threads), name_memory_shortage():
        training = _training(plan, datasets.load(plan.config.dataset), description, provenance, place)
        share_state(training, place)
        with training.recorder:
            for _ in training.epochs_until(plan.config.epochs):
                pass


def _training(plan: Plan, data: Dataset, description: str, provenance: Provenance, place: Processes | None) -> Training:
    """One process's network, recorder and samples."""
    config, device = plan.config, provenance.device
    model = models.build(config, data.inputs.shape[1:], len(data.classes)).to(device)
    optimizer = optimizer_of(config, model)
    schedule, task = schedule_of(config, optimizer), task_of(config)  # before the recorder makes the run's folder
    return Training(
        model,
        task,
        samples_of(data, data.training, device),
        samples_of(data, ~data.training, device) if not data.training.all() else None,
        _recorder(plan, data, model, spectra_attributes(config, description, data, provenance)),
        optimizer,
        schedule,
        config.batch_size,
        config.seed,
        None if place is None else Shards(model, place),
    )


def _recorder(plan: Plan, data: Dataset, model: nn.Module, attributes: Mapping[str, Any]) -> SpectralRecorder:
    """The recorder of a plan, which goes on with the spectra that are there; nothing is written yet."""
    introspection = plan.config.introspection
    several = plan.config.processes > 1
    return SpectralRecorder(
        model,
        plan.folder.spectra,
        resume=True,
        periodic=False,  # at checkpoints, together with them
        groups=data.groups,
        margins=data.margins,
        statistics=introspection.statistics,
        every=introspection.every,
        epochs=plan.config.epochs,
        layers=introspection.layers,
        engine=introspection.engine,
        floor=introspection.floor,
        reduction="sum" if several else "mean",  # each says what its samples count in the mean over all
        leading=introspection.leading,
        tolerance=introspection.tolerance,
        directions=introspection.directions,
        bins=introspection.bins,
        group_sizes=data.group_sizes(),
        permutation_design=run_permutations(plan.config, data),
        attributes=attributes,
    )
