"""One launch of a run: going on from a checkpoint, training to the end, saving in between."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from autospec.errors import AutoSpecError
from autospec.experiments.runs.checkpoint import Checkpoints, State, random_state, restore_random_state
from autospec.experiments.runs.folder import RunFolder
from autospec.experiments.runs.progress import bar
from autospec.experiments.runs.provenance import Provenance, read_provenance
from autospec.experiments.runs.signals import postpone_signals
from autospec.experiments.training.devices import peak_gpu_memory_mb
from autospec.experiments.training.loop import Training
from autospec.recording.processes import Processes

log = logging.getLogger(__name__)


def resume(
    folder: RunFolder, training: Training, state: State | None, provenance: Provenance, accept_changes: bool
) -> list[str]:
    """Put a run back to its last checkpoint, or to its beginning where there is none.

    Args:
        folder: the run's.
        training: network, optimizer and recorder, before their first epoch.
        state: its last checkpoint's, None where there is none.
        provenance: this launch's; takes over the launches before it.
        accept_changes: go on even where code, packages or device are others than in the launch before.

    Returns:
        What has changed since the launch before, each as a short phrase.

    Raises:
        AutoSpecError: where something has changed and that is not accepted.
    """
    if state is None:
        training.recorder.rewind(0)
        return []
    try:
        earlier = read_provenance(folder.provenance)
        differences = provenance.differences(earlier)
        provenance.sessions = earlier.sessions
    except AutoSpecError as error:
        differences = [str(error)]
    if differences and not accept_changes:
        raise AutoSpecError(
            f"run {folder.run_id} began under other conditions, or may have: {'; '.join(differences)}. "
            "Go on all the same with accept_changes=true, or remove its folder to begin anew"
        )
    training.load_state_dict(state["training"])
    restore_random_state(state["random"])
    return differences


def share_state(training: Training, place: Processes | None, state: State | None = None) -> None:
    """Put every other process to where the first one is, which gives the checkpoint that it went on from."""
    if place is None:
        return
    state = place.gather(state, "state")[0]
    if place.rank and state is None:
        training.recorder.rewind(0)
    elif place.rank and state is not None:
        training.load_state_dict(state["training"])
        restore_random_state(state["random"])


def train_to_end(
    folder: RunFolder, training: Training, epochs: int, checkpoints: Checkpoints, provenance: Provenance
) -> None:
    """Train up to a number of epochs, with checkpoints on the way, which are removed at the end.

    Raises:
        AutoSpecError: where the loss is not a number or the disk refuses; what was recorded until then stays.
    """
    begins = f"goes on after {training.epoch} of" if training.epoch else "begins:"
    log.info("%s %s %d epochs", folder.run_id, begins, epochs)
    try:
        _train_epochs(folder, training, epochs, checkpoints, provenance)
    finally:
        with contextlib.suppress(AutoSpecError):  # a full disk has been named by then
            _note_progress(folder, training, provenance)
    checkpoints.remove()
    if training.recorder.permutation_s:
        log.info("%s: permutations took %.1f s of it", folder.run_id, training.recorder.permutation_s)
    log.info("%s is complete: %d epochs, %s s", folder.run_id, training.epoch, provenance.sessions[-1]["wall_s"])


def _train_epochs(
    folder: RunFolder, training: Training, epochs: int, checkpoints: Checkpoints, provenance: Provenance
) -> None:
    """Train epoch after epoch; a signal to stop is obeyed between two of them, after a checkpoint."""

    def state() -> dict[str, Any]:
        _note_progress(folder, training, provenance)  # so that a launch that is killed has said what it cost
        random = random_state(provenance.device)
        return {"epoch": training.epoch, "training": training.state_dict(), "random": random}

    with postpone_signals() as signals, training.recorder, bar(epochs, training.epoch, folder.run_id) as progress:
        for loss in training.epochs_until(epochs):
            progress.set_postfix(loss=f"{loss:.4g}", refresh=False)
            progress.update()
            if checkpoints.due or signals.names:
                checkpoints.save(state)
            if signals.names:
                done = f"{training.epoch} of {epochs} epochs"
                log.warning("%s was saved after %s on %s", folder.run_id, done, signals.names)
                signals.act()


def _note_progress(folder: RunFolder, training: Training, provenance: Provenance) -> None:
    """Note in the provenance how far this launch has come and what it has cost."""
    provenance.reached(training.epoch, peak_gpu_memory_mb(provenance.device))
    provenance.write(folder.provenance)
