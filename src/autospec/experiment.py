"""One run from its plan to its spectra: data, network, task, recorder, training, result."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from autospec import __version__, datasets, models
from autospec.config.checks import as_yaml
from autospec.config.schema import Device
from autospec.datasets.dataset import Dataset, Mask
from autospec.determinism import deterministic
from autospec.errors import AutoSpecError, AutoSpecWarning
from autospec.plan import Plan
from autospec.progress import bar
from autospec.recorder import SpectralRecorder
from autospec.runs.checkpoint import Checkpoints, random_state, restore_random_state
from autospec.runs.folder import RunFolder, locked
from autospec.runs.provenance import Provenance, peak_memory_mb, read_provenance, session
from autospec.store.read import read_table
from autospec.store.write import attributes_of, replaced
from autospec.tasks import TASKS
from autospec.training import Samples, Training

log = logging.getLogger(__name__)


def run(plan: Plan) -> None:
    """Make the run of a plan, or go on with it from its checkpoint.

    Raises AutoSpecError for whatever a user can mend, before anything is written where that is possible.
    """
    data = datasets.load(plan.config.dataset)
    provenance = Provenance(plan.folder.run_id, plan.fingerprint, device_name(plan.config.device), plan.config.threads)
    with locked(plan.folder), deterministic(plan.config.threads):
        _set_aside_if_damaged(plan.folder)
        training = _training(plan, data, provenance)
        with _log_file(plan.folder):
            _train(plan, training, provenance)


def device_name(device: Device) -> str:
    """cpu or cuda; AutoSpecError for cuda where there is none."""
    available = torch.cuda.is_available()
    if device is Device.cuda and not available:
        raise AutoSpecError("device=cuda: torch finds no CUDA GPU on this machine; allowed here: auto, cpu")
    return "cuda" if available and device is not Device.cpu else "cpu"


def _training(plan: Plan, data: Dataset, provenance: Provenance) -> Training:
    """Network, recorder and samples of a plan, before its first epoch; nothing is written."""
    config, device = plan.config, provenance.device
    model = models.build(config, data.inputs.shape[1:], len(data.classes)).to(device)
    recorder = SpectralRecorder(
        model,
        plan.folder.spectra,
        resume=True,
        groups=data.groups,
        margins=data.margins,
        statistics=config.introspection.statistics,
        every=config.introspection.every,
        epochs=config.epochs,
        layers=config.introspection.layers,
        engine=config.introspection.engine,
        leading=config.introspection.leading,
        bins=config.introspection.bins,
        group_sizes=data.group_sizes(),
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


def _samples(data: Dataset, chosen: Mask, device: str) -> Samples:
    def on_device(values: Any) -> Tensor:
        return torch.from_numpy(values[chosen]).to(device)

    return Samples(on_device(data.inputs), on_device(data.target), on_device(data.group))


def _attributes(plan: Plan, data: Dataset, provenance: Provenance) -> dict[str, Any]:
    """The root attributes of the spectra file: it can be read without the rest of the folder."""
    return attributes_of(
        {
            "run_id": plan.folder.run_id,
            "config": as_yaml(plan.config),
            "seed": plan.config.seed,
            "simulated": data.simulated,
            "source": data.source,
            "data_fingerprint": plan.fingerprint,
            "device": provenance.device,
            "metric": TASKS[plan.config.task].metric_name,
            "autospec_version": __version__,
            "torch_version": torch.__version__,
            "git_commit": provenance.git_commit,
        }
    )


def _train(plan: Plan, training: Training, provenance: Provenance) -> None:
    """Train to the end from wherever the last checkpoint is."""
    started = time.monotonic()
    checkpoints = Checkpoints(plan.folder)
    _note_provenance(plan, provenance)
    _resume(plan.folder, training, checkpoints)
    with training.recorder, _shown(plan, training.epoch) as show:

        def after_epoch(loss: float) -> None:
            show(loss)
            if checkpoints.due:
                checkpoints.save(lambda: _state(training))

        training.run(plan.config.epochs, after_epoch)
    checkpoints.remove()
    wall_s = time.monotonic() - started
    provenance.sessions[-1] |= {"wall_s": round(wall_s, 2), "peak_memory_mb": peak_memory_mb()}
    provenance.write(plan.folder.provenance)
    log.info("%s: %d epochs, %.1f s", plan.folder.run_id, plan.config.epochs, wall_s)


def _state(training: Training) -> dict[str, Any]:
    return {"training": training.state_dict(), "random": random_state()}


def _resume(folder: RunFolder, training: Training, checkpoints: Checkpoints) -> None:
    """Put a run back to its last checkpoint, or to its beginning where there is none."""
    state = checkpoints.load() if training.epoch else None
    if state is None:
        training.recorder.rewind(0)
        return
    training.load_state_dict(state["training"])
    restore_random_state(state["random"])
    log.info("%s goes on at epoch %d", folder.run_id, training.epoch)


def _set_aside_if_damaged(folder: RunFolder) -> None:
    """Move spectra that cannot be read out of the way: the run begins anew, and nothing is lost."""
    if not folder.spectra.exists():
        return
    try:
        read_table(folder.spectra)
    except AutoSpecError as error:
        aside = folder.spectra.with_name("spectra.damaged.h5")
        folder.spectra.replace(aside)
        log.warning("%s; set aside as %s, and the run begins anew", error, aside.name)


def _note_provenance(plan: Plan, provenance: Provenance) -> None:
    """Write configuration and provenance; AutoSpecError where an earlier launch was made with something else."""
    folder = plan.folder
    earlier = read_provenance(folder.provenance)
    if earlier is not None and folder.checkpoint.exists():
        differences = provenance.differences(earlier)
        if differences and not plan.config.accept_changes:
            raise AutoSpecError(
                f"run {folder.run_id} began under other conditions: {'; '.join(differences)}. "
                "Go on all the same with accept_changes=true, or remove its folder to begin anew"
            )
        provenance.sessions = earlier.sessions
    provenance.sessions = [*provenance.sessions, session()]
    with replaced(folder.config) as temporary:
        temporary.write_text(as_yaml(plan.config))
    provenance.write(folder.provenance)


@contextlib.contextmanager
def _shown(plan: Plan, epoch: int) -> Iterator[Callable[[float], None]]:
    """A progress bar from an epoch on; yields what moves it by an epoch and shows its loss."""
    with bar(plan.config.epochs, epoch, plan.folder.run_id) as progress:

        def show(loss: float) -> None:
            progress.set_postfix(loss=f"{loss:.4g}", refresh=False)
            progress.update()

        yield show


@contextlib.contextmanager
def _log_file(folder: RunFolder) -> Iterator[None]:
    """Messages, and the traceback that ends a run, go to the run's own log."""
    try:
        handler = logging.FileHandler(folder.log)
    except OSError as error:
        raise AutoSpecError(f"cannot write {folder.log}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", AutoSpecWarning)
            warnings.showwarning = lambda message, *_: log.warning("%s: %s", folder.run_id, message)
            yield
    except BaseException:
        failure = log.makeRecord(log.name, logging.ERROR, __file__, 0, "stopped", (), sys.exc_info())
        handler.handle(failure)  # here only: the console has its own short message
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
