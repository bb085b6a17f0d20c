"""One run from its plan to its spectra, phase after phase: its data, what it says of itself, its training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from autospec.experiments import datasets
from autospec.experiments.assembly import assemble
from autospec.experiments.config.checks import as_yaml
from autospec.experiments.config.pairs import check_pairs
from autospec.experiments.config.targets import load_extensions
from autospec.experiments.launch.ranks import other_ranks
from autospec.experiments.plan import Plan
from autospec.experiments.runs.checkpoint import Checkpoints
from autospec.experiments.runs.description import write_description
from autospec.experiments.runs.folder import lock_run
from autospec.experiments.runs.log import log_run
from autospec.experiments.runs.provenance import Provenance
from autospec.experiments.runs.session import resume, share_state, train_to_end
from autospec.experiments.runs.spectra import set_damaged_spectra_aside, spectra_attributes
from autospec.experiments.training.devices import device_name, gpu_name, make_deterministic, name_memory_shortage
from autospec.recording.processes import Processes

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
        gpu = gpu_name(device)
        was_done = folder.done
        if was_done and not config.overwrite:  # another process has ended it since it was planned
            log.info("%s is complete; nothing to do", folder.run_id)
            return

        data = datasets.load(config.dataset)
        check_pairs(config, [*data.groups, *data.margins])  # only now are all names there

        description = as_yaml(config)
        provenance = Provenance(
            folder.run_id, plan.fingerprint, device, config.threads, gpu, processes=config.processes
        )
        set_damaged_spectra_aside(folder, config)  # before the recorder, which goes on with what is there
        attributes = spectra_attributes(config, description, data, provenance)

        checkpoints = Checkpoints(folder, config.checkpoint_s)
        if was_done:
            log.info("%s was complete and is made anew (overwrite=true)", folder.run_id)
            checkpoints.remove()
        with other_ranks(config.processes, device, partial(train_rank, plan, device, attributes)) as place:
            training = assemble(plan, data, device, attributes, place)
            state = checkpoints.load(training.epoch)
            changes = resume(folder, training, state, provenance, config.accept_changes)
            share_state(training, place, state)

            # before the first epoch: a run that is killed must have said what it was
            write_description(folder, description, data)
            provenance.begin(command, training.epoch, changes)
            provenance.write(folder.provenance)

            train_to_end(folder, training, config.epochs, checkpoints, provenance)


def train_rank(plan: Plan, device: str, attributes: Mapping[str, Any], place: Processes) -> None:
    """Train beside the process that was launched, which alone writes and logs."""
    load_extensions(plan.config.extensions)
    with make_deterministic(plan.config.threads), name_memory_shortage():
        training = assemble(plan, datasets.load(plan.config.dataset), device, attributes, place)
        share_state(training, place)
        with training.recorder:
            for _ in training.epochs_until(plan.config.epochs):
                pass
