"""The folder of a run: what lies where, and who may write."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from autospec.errors import AutoSpecError

if TYPE_CHECKING:
    import h5py

RUNS = "runs"

LOOK_S = 0.5
"""Longer than anyone who only looks whether a run is being worked on holds its lock."""


@dataclass(frozen=True)
class RunFolder:
    """``<output_dir>/runs/<run_id>``."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def spectra(self) -> Path:
        return self.path / "spectra.h5"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def cohort(self) -> Path:
        return self.path / "cohort.json"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def previous_checkpoint(self) -> Path:
        return self.path / "checkpoint.previous.pt"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def complete(self) -> bool:
        """Whether the run ended well; raises as ``open_own_spectra`` does."""
        if not self.spectra.is_file():
            return False
        with self.open_own_spectra() as file:
            return bool(file.attrs.get("complete", False))

    @contextlib.contextmanager
    def open_own_spectra(self) -> Iterator[h5py.File]:
        """The run's spectra opened for reading.

        DamagedFile where they cannot be read, AutoSpecError where they are another run's or of another schema.
        """
        from autospec.store.read import opened

        with opened(self.spectra) as file:
            own = str(file.attrs.get("run_id", ""))
            if own != self.run_id:
                of = f"of run {own}" if own else "not of a run"
                raise AutoSpecError(f"{self.spectra} is {of}, so this run cannot go on with it; move it elsewhere")
            yield file


def run_folder(output_dir: str, run_id: str) -> RunFolder:
    """The folder of a run, which need not exist."""
    return RunFolder(Path(output_dir) / RUNS / run_id)


@contextlib.contextmanager
def lock_run(folder: RunFolder) -> Iterator[None]:
    """Make the folder and hold its lock; AutoSpecError where another process holds it or it cannot be written.

    The lock is the operating system's and dies with the process that holds it. Folders that were made for it and to
    which nothing was written are removed again.
    """
    made = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = _acquired(folder.lock)
    except BlockingIOError:
        raise AutoSpecError(f"run {folder.run_id} is being worked on by {_named_holder(folder)}") from None
    except OSError as error:
        _remove_if_empty(made)
        raise AutoSpecError(f"output_dir: cannot write or lock {folder.path}: {error.strerror}") from error
    with lock:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without saying whose it is
            os.write(lock.fileno(), json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())
        try:
            yield
        finally:
            folder.lock.unlink(missing_ok=True)
            _remove_if_empty(made)


def holder(folder: RunFolder) -> str | None:
    """Who works on a run, or None; what a dead process left behind counts for nothing."""
    try:
        with folder.lock.open() as file:
            # shared, so that several may look at once; a run that begins waits for a look to end
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named_holder(folder)
    except OSError:
        return None
    return None


def _acquired(path: Path) -> TextIO:
    """The lock file, locked; BlockingIOError where another process works on the run."""
    deadline = time.monotonic() + LOOK_S
    while True:
        try:
            return _acquired_now(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_S / 10)


def _acquired_now(path: Path) -> TextIO:
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its last holder removed the file between our opening and locking it


def _named_holder(folder: RunFolder) -> str:
    with contextlib.suppress(OSError, ValueError):
        named = json.loads(folder.lock.read_text())
        return f"process {named['pid']} on {named['host']}"
    return "another process"


def _remove_if_empty(made: Sequence[Path]) -> None:
    for path in made:
        with contextlib.suppress(OSError):
            path.rmdir()
