"""One run from its plan to its spectra: data, network, task, recorder, training, result."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autospec.errors import AutoSpecError, DamagedFile
from autospec.experiments import datasets, models
from autospec.experiments.config.checks import as_yaml
from autospec.experiments.config.pairs import check_pairs
from autospec.experiments.config.schema import Task
from autospec.experiments.datasets.dataset import Dataset, Mask
from autospec.experiments.permutation_design import permutation_design
from autospec.experiments.plan import Plan
from autospec.experiments.runs.checkpoint import Checkpoints, random_state, restore_random_state
from autospec.experiments.runs.folder import RunFolder, lock_run
from autospec.experiments.runs.log import log_run
from autospec.experiments.runs.progress import bar
from autospec.experiments.runs.provenance import Provenance, read_provenance
from autospec.experiments.runs.signals import postpone_signals
from autospec.experiments.training.determinism import device_name, make_deterministic
from autospec.experiments.training.loop import Samples, Training
from autospec.experiments.training.tasks import TASKS
from autospec.recording.recorder import SpectralRecorder
from autospec.recording.schedule import Schedule
from autospec.store.atomic import remove_leftovers, write_atomically
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.read import read_table
from autospec.store.write import hdf5_attributes

log = logging.getLogger(__name__)


def run(plan: Plan, command: str = "", keep_mistakes: bool = False) -> None:
    """Make the run of a plan, or go on with it from its checkpoint.

    ``command`` makes this run again, for its provenance; ``keep_mistakes`` logs even a mistake that is found before
    anything is written, which otherwise leaves nothing behind. Raises AutoSpecError for whatever a user can mend.
    """
    folder, config = plan.folder, plan.config
    with lock_run(folder), log_run(folder, keep_mistakes), make_deterministic(config.threads):
        device = device_name(config.device)
        provenance = Provenance(folder.run_id, plan.fingerprint, device, config.threads, _gpu_name(device))
        if plan.done:  # another process has ended it since it was planned
            log.info("%s is complete; nothing to do", folder.run_id)
            return
        with memory_named():
            data = datasets.load(config.dataset)
            check_pairs(config, [*data.groups, *data.margins])
            _set_aside_if_damaged(folder)
            _train(plan, data, provenance, command)


@contextlib.contextmanager
def memory_named() -> Iterator[None]:
    """A context in which memory that runs out is an AutoSpecError; torch and NumPy each have errors of their own."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        of_torch = isinstance(error, torch.OutOfMemoryError) or re.search("allocate memory|Storage size", str(error))
        if not of_torch and not isinstance(error, MemoryError):
            raise
        raise AutoSpecError(
            "there is not enough memory for this run: a smaller width, depth, batch_size or data set needs less"
        ) from error


def _gpu_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else ""


def _training(plan: Plan, data: Dataset, provenance: Provenance) -> Training:
    """Network, recorder and samples of a plan, before its first epoch; nothing is written."""
    config, device = plan.config, provenance.device
    model = models.build(config, data.inputs.shape[1:], len(data.classes)).to(device)
    recorder = SpectralRecorder(
        model,
        plan.folder.spectra,
        resume=True,
        periodic=False,  # at checkpoints, together with them
        groups=data.groups,
        margins=data.margins,
        statistics=config.introspection.statistics,
        every=config.introspection.every,
        epochs=config.epochs,
        layers=config.introspection.layers,
        engine=config.introspection.engine,
        leading=config.introspection.leading,
        directions=config.introspection.directions,
        bins=config.introspection.bins,
        group_sizes=data.group_sizes(),
        permutation_design=_permutation_design(plan, data),
        attributes=_attributes(plan, data, provenance),
    )
    held_out = ~data.training
    return Training(
        model,
        TASKS[config.task],
        _samples(data, data.training, device),
        _samples(data, held_out, device) if held_out.any() else None,
        recorder,
        config.learning_rate,
        config.batch_size,
        config.seed,
    )


def _permutation_design(plan: Plan, data: Dataset) -> PermutationDesign:
    """The exchanges of people's labels that this run's groups allow."""
    config = plan.config
    schedule = Schedule(config.introspection.every, config.epochs)
    target = config.dataset.target if config.task is Task.classification else None
    recorded = [epoch for epoch in range(config.epochs) if schedule.takes(epoch)]
    residualized = getattr(config.dataset, "residualize", ())
    return permutation_design(data, config.introspection, config.dataset.group_by, target, recorded, residualized)


def _samples(data: Dataset, chosen: Mask, device: str) -> Samples:
    def on_device(values: Any) -> Tensor:
        return torch.from_numpy(values[chosen]).to(device)

    return Samples(on_device(data.inputs), on_device(data.target), on_device(data.group))


def _attributes(plan: Plan, data: Dataset, provenance: Provenance) -> dict[str, Any]:
    """The root attributes of the spectra file: it can be read without the rest of the folder."""
    return hdf5_attributes(
        {
            "run_id": plan.folder.run_id,
            "config": as_yaml(plan.config),
            "seed": plan.config.seed,
            "simulated": data.simulated,
            "source": data.source,
            "data_fingerprint": plan.fingerprint,
            "device": provenance.device,
            "metric": TASKS[plan.config.task].metric_name,
            "autospec_version": version("autospec-torch"),
            "torch_version": torch.__version__,
            "git_commit": provenance.git_commit,
        }
    )


def _write_cohort(data: Dataset, path: Path) -> None:
    """Who was found and left out, and how alike the groups are, where the samples are people with an account."""
    if data.account:
        with write_atomically(path) as temporary:
            told = {"account": data.account, "balance": data.balance}
            temporary.write_text(json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def _train(plan: Plan, data: Dataset, provenance: Provenance, command: str) -> None:
    """Train to the end from wherever the last checkpoint is."""
    folder, training = plan.folder, _training(plan, data, provenance)
    checkpoints = Checkpoints(folder, plan.config.checkpoint_s)
    accepted = _resume(plan, training, checkpoints, provenance)
    provenance.begin(command, training.epoch, accepted)
    for path in (folder.checkpoint, folder.config, folder.provenance, folder.cohort):
        remove_leftovers(path)
    with write_atomically(folder.config) as temporary:
        temporary.write_text(as_yaml(plan.config))
    provenance.write(folder.provenance)
    _write_cohort(data, folder.cohort)
    begins = f"goes on after {training.epoch} of" if training.epoch else "begins:"
    log.info("%s %s %d epochs", folder.run_id, begins, plan.config.epochs)
    try:
        _epochs(plan, training, checkpoints, provenance)
    finally:
        with contextlib.suppress(AutoSpecError):  # a full disk has been named by then
            _note(provenance, training, folder)
    checkpoints.remove()
    if training.recorder.permutation_s:
        log.info("%s: relabelling took %.1f s of it", folder.run_id, training.recorder.permutation_s)
    log.info("%s is complete: %d epochs, %s s", folder.run_id, training.epoch, provenance.sessions[-1]["wall_s"])


def _note(provenance: Provenance, training: Training, folder: RunFolder) -> None:
    """Note how far this launch has come and what it has cost."""
    provenance.reached(training.epoch, _peak_gpu_memory_mb(provenance.device))
    provenance.write(folder.provenance)


def _epochs(plan: Plan, training: Training, checkpoints: Checkpoints, provenance: Provenance) -> None:
    """Train epoch after epoch; a signal to stop is obeyed between two of them, after a checkpoint."""
    epochs = plan.config.epochs

    def state() -> dict[str, Any]:
        _note(provenance, training, plan.folder)  # a launch that is killed has said what it cost until here
        random = random_state(provenance.device)
        return {"epoch": training.epoch, "training": training.state_dict(), "random": random}

    with postpone_signals() as signals, training.recorder, _shown(plan, training.epoch) as show:

        def after_epoch(loss: float) -> None:
            show(loss)
            if checkpoints.due or signals.names:
                checkpoints.save(state)
            if signals.names:
                done = f"{training.epoch} of {epochs} epochs"
                log.warning("%s was saved after %s on %s", plan.folder.run_id, done, signals.names)
                signals.act()

        training.run(epochs, after_epoch)


def _resume(plan: Plan, training: Training, checkpoints: Checkpoints, provenance: Provenance) -> list[str]:
    """Put a run back to its last checkpoint, or to its beginning where there is none.

    Returns what has changed since an earlier launch; AutoSpecError where the configuration does not accept that.
    """
    state = checkpoints.load(training.epoch)
    if state is None:
        training.recorder.rewind(0)
        return []
    try:
        earlier = read_provenance(plan.folder.provenance)
        differences = provenance.differences(earlier)
        provenance.sessions = earlier.sessions
    except AutoSpecError as error:
        differences = [str(error)]
    if differences and not plan.config.accept_changes:
        raise AutoSpecError(
            f"run {plan.folder.run_id} began under other conditions, or may have: {'; '.join(differences)}. "
            "Go on all the same with accept_changes=true, or remove its folder to begin anew"
        )
    training.load_state_dict(state["training"])
    restore_random_state(state["random"])
    return differences


def _peak_gpu_memory_mb(device: str) -> float | None:
    return round(torch.cuda.max_memory_allocated() / 1024**2, 1) if device == "cuda" else None


def _set_aside_if_damaged(folder: RunFolder) -> None:
    """Move spectra that cannot be read out of the way: the run begins anew, and nothing is lost."""
    if not folder.spectra.exists():
        return
    try:
        read_table(folder.spectra)
    except DamagedFile as error:
        taken = len(list(folder.path.glob("spectra.damaged*.h5")))
        aside = folder.spectra.with_name(f"spectra.damaged{taken or ''}.h5")
        folder.spectra.replace(aside)
        log.warning("%s; set aside as %s, and the run begins anew", error, aside.name)


@contextlib.contextmanager
def _shown(plan: Plan, epoch: int) -> Iterator[Callable[[float], None]]:
    """A progress bar from an epoch on; yields what moves it by an epoch and shows its loss."""
    with bar(plan.config.epochs, epoch, plan.folder.run_id) as progress:

        def show(loss: float) -> None:
            progress.set_postfix(loss=f"{loss:.4g}", refresh=False)
            progress.update()

        yield show
