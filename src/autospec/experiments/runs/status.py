"""How far the runs of an output folder are, from their files alone."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from autospec.errors import AutoSpecError, DamagedFile
from autospec.experiments.runs.folder import RUNS, RunFolder, ended, holder
from autospec.experiments.runs.log import last_message
from autospec.experiments.runs.progress import duration
from autospec.harmless import visible
from autospec.store.schema import TRAINING_EPOCHS

STATES = ("done", "running", "failed", "stale")
"""Complete; being worked on; ended by an error, or the spectra another run's; else the same command goes on with it."""


@dataclass(frozen=True)
class Status:
    """The state of a run, and details of it in a few words."""

    run_id: str
    state: str
    detail: str


@dataclass(frozen=True)
class _Progress:
    """The epochs that the spectra hold, of how many, and when they were written."""

    complete: bool
    epochs: int
    of: int | None
    written_s: float

    @property
    def reached(self) -> str:
        return f"{self.epochs} epochs" if self.of is None else f"{self.epochs} of {self.of} epochs"


def statuses(output_dir: Path) -> list[Status]:
    """Return the status of every run of an output folder, sorted by name.

    Raises:
        AutoSpecError: where there is no such folder.
    """
    if not output_dir.is_dir():
        raise AutoSpecError(f"there is no folder {output_dir}; name the output_dir of the sweep")
    return [status(RunFolder(path)) for path in sorted((output_dir / RUNS).glob("*")) if path.is_dir()]


def status(folder: RunFolder) -> Status:
    """Return the status of one run, from its files and its lock."""
    held = holder(folder) is not None  # before its files are read: it may end in between
    try:
        progress = _progress(folder)
    except DamagedFile:
        anew = "overwrite=true" if ended(folder, _epochs_of(folder) or 0) else "the same command"
        return Status(folder.run_id, "stale", f"its spectra are damaged: {anew} sets them aside, begins anew")
    except AutoSpecError as error:
        return Status(folder.run_id, "failed", str(error))
    if progress.complete:
        return Status(folder.run_id, "done", progress.reached)
    if held:
        return Status(folder.run_id, "running", ", ".join([progress.reached, *_pace(folder, progress)]))
    last = last_message(folder.log)
    if last and last.level == "ERROR":
        return Status(folder.run_id, "failed", last.text)
    stopped = f": {last.text.removeprefix(folder.run_id).strip()}" if last and last.level == "WARNING" else ""
    return Status(folder.run_id, "stale", progress.reached + stopped)


def summary(runs: list[Status], output_dir: Path) -> str:
    """Return how many runs there are of each state, and a line for each that is not done."""
    counts = ", ".join(f"{sum(entry.state == state for entry in runs)} {state}" for state in STATES)
    unfinished = sorted((e for e in runs if e.state != "done"), key=lambda e: STATES.index(e.state))
    lines = [visible(f"{entry.state:8}{entry.run_id}  {entry.detail}") for entry in unfinished]
    return "\n".join([f"{output_dir}: {len(runs)} runs: {counts}", *lines])


def _progress(folder: RunFolder) -> _Progress:
    if not folder.has_spectra:
        return _Progress(False, 0, _epochs_of(folder), 0.0)
    with folder.open_own_spectra() as file:
        epochs = len(file[TRAINING_EPOCHS.path]) if TRAINING_EPOCHS.path in file else 0
        complete = bool(file.attrs.get("complete", False))
    return _Progress(complete, epochs, None if complete else _epochs_of(folder), folder.spectra.stat().st_mtime)


def _epochs_of(folder: RunFolder) -> int | None:
    """The number of epochs of a run, from its configuration."""
    with contextlib.suppress(OSError):
        line = re.search(r"^epochs: (\d+)$", folder.config.read_text("utf-8", "replace"), re.MULTILINE)
        return int(line.group(1)) if line else None
    return None


def _pace(folder: RunFolder, progress: _Progress) -> Iterator[str]:
    """The rate since the latest launch began, and the time left at that rate."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        latest = json.loads(folder.provenance.read_text())["sessions"][-1]
        spent_s = progress.written_s - datetime.fromisoformat(latest["began"]).timestamp()
        epochs = progress.epochs - latest["from_epoch"]
        if spent_s > 0 and epochs > 0:
            yield f"{epochs / spent_s:.3g} epochs/s"
            if progress.of is not None:
                yield f"about {duration((progress.of - progress.epochs) * spent_s / epochs)} left"
