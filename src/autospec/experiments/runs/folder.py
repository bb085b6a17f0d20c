"""The folder of a run: what lies where, and who may write.

The lock is kept by hand. ``filelock`` was compared: its ``FileLock`` does not say who holds a lock, leaves its file in
the folder, and cannot be looked at without being taken, which would stop a run that begins while ``status`` looks; its
``SoftFileLock`` names the holder, but stays for ever after one that was killed on another machine. Ours names the
holder, is released by the operating system however the process ends, and leaves nothing behind. Linux turns ``flock``
on NFS into a lock that all machines see.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from autospec.errors import AutoSpecError, DamagedFile, UnreadableFile

if TYPE_CHECKING:
    import h5py

RUNS = "runs"

RETRY_S = 0.5
"""Seconds to retry; exceeds how long a status check holds the lock."""


@dataclass(frozen=True)
class RunFolder:
    """``<output_dir>/runs/<run_id>``, which need not exist, and the paths in it.

    Attributes:
        path: The folder.
        run_id: Its name.
        spectra: The spectra; written at checkpoints.
        config: The resolved configuration.
        provenance: What the run was made with.
        cohort: The account of a cohort and the balance of its groups, where the samples are of subjects.
        sites: The picture of sites before and after they were harmonised.
        log: Messages, and the traceback of an error.
        checkpoint: The newest checkpoint, while the run is unfinished.
        previous_checkpoint: The checkpoint before that.
        lock: Says who works on the run, while anyone does.
    """

    path: Path
    run_id: str = field(init=False)
    spectra: Path = field(init=False)
    config: Path = field(init=False)
    provenance: Path = field(init=False)
    cohort: Path = field(init=False)
    sites: Path = field(init=False)
    log: Path = field(init=False)
    checkpoint: Path = field(init=False)
    previous_checkpoint: Path = field(init=False)
    lock: Path = field(init=False)

    def __post_init__(self) -> None:
        names = {
            "spectra": "spectra.h5",
            "config": "config.yaml",
            "provenance": "provenance.json",
            "cohort": "cohort.json",
            "sites": "sites.png",
            "log": "run.log",
            "checkpoint": "checkpoint.pt",
            "previous_checkpoint": "checkpoint.previous.pt",
            "lock": ".lock",
        }
        paths = {attribute: self.path / name for attribute, name in names.items()}
        # a frozen dataclass sets what it derives in this way only; said once, everybody is handed the same paths
        vars(self).update(run_id=self.path.name, **paths)

    @property
    def has_spectra(self) -> bool:
        """Whether there is a spectra file.

        Raises:
            UnreadableFile: where that cannot be told.
        """
        try:
            self.spectra.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise UnreadableFile(
                f"{self.spectra} cannot be looked at: {error.strerror}; mend that, then try again"
            ) from error
        return True

    @property
    def complete(self) -> bool:
        """Whether the run ended well.

        Raises:
            UnreadableFile: where the spectra cannot be read now, which says nothing of their content.
            DamagedFile: where they were read and found wrong.
            AutoSpecError: where they are another run's or of another schema.
        """
        if not self.has_spectra:
            return False
        with self.open_own_spectra() as file:
            return bool(file.attrs.get("complete", False))

    @property
    def done(self) -> bool:
        """Whether the run is complete; damaged spectra count as not there, and are set aside when it runs.

        Raises:
            AutoSpecError: where the spectra are another run's or of another schema, or cannot be read now.
        """
        try:
            return self.complete
        except DamagedFile:
            return False

    @contextlib.contextmanager
    def open_own_spectra(self) -> Iterator[h5py.File]:
        """Open the spectra for reading, after a check that they are this run's.

        Yields:
            The open file.

        Raises:
            UnreadableFile: where the spectra cannot be read now, which says nothing of their content.
            DamagedFile: where they were read and found wrong.
            AutoSpecError: where they are another run's or of another schema.
        """
        from autospec.store.opening import open_checked  # loads h5py, which a look at locks does without

        with open_checked(self.spectra) as file:
            recorded = str(file.attrs.get("run_id", ""))
            if recorded != self.run_id:
                of = f"of run {recorded}" if recorded else "not of a run"
                raise AutoSpecError(f"{self.spectra} is {of}, so this run cannot go on with it; move it elsewhere")
            yield file


def ended(folder: RunFolder, epochs: int) -> bool:
    """Return whether a run whose spectra cannot tell was complete, from what lies beside them; in doubt it was.

    Args:
        folder: the run's.
        epochs: how many it has.
    """
    if folder.checkpoint.exists() or folder.previous_checkpoint.exists():
        return False
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return bool(json.loads(folder.provenance.read_text())["sessions"][-1]["to_epoch"] >= epochs)
    return True


def run_folder(output_dir: str, run_id: str) -> RunFolder:
    """Return the folder of a run, which need not exist."""
    return RunFolder(Path(output_dir) / RUNS / run_id)


@contextlib.contextmanager
def lock_run(folder: RunFolder) -> Iterator[None]:
    """A context that makes the folder and holds its lock; folders that stay empty are removed at its end.

    Raises:
        AutoSpecError: where another process holds the lock, or the folder cannot be written.
    """
    made = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder.lock)
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
    """Return who works on a run, as "process <pid> on <host>", or None; a file that a dead process left is no lock."""
    try:
        with folder.lock.open() as file:
            # shared, so that several may look at once; a run that begins waits for a look to end
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named_holder(folder)
    except OSError:
        return None
    return None


def _acquire(path: Path) -> TextIO:
    """The lock file, locked after some tries; BlockingIOError where another process works on the run."""
    deadline = time.monotonic() + RETRY_S
    while True:
        try:
            return _acquire_now(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S / 10)


def _acquire_now(path: Path) -> TextIO:
    """The lock file, locked at once."""
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
    """What the holder of a lock wrote into it."""
    with contextlib.suppress(OSError, ValueError):
        named = json.loads(folder.lock.read_text())
        return f"process {named['pid']} on {named['host']}"
    return "another process"


def _remove_if_empty(made: Sequence[Path]) -> None:
    """Remove folders, inner ones first, until one holds something."""
    for path in made:
        with contextlib.suppress(OSError):
            path.rmdir()
