"""Processes that make runs side by side end when they are asked to, and with the command that began them.

joblib's take whatever ends a job for its result and wait for the next one, for minutes also where nobody is left to
give them any.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

LOOK_S = 0.5


def is_worker() -> bool:
    """Return whether another process of this program began this one, to give it jobs."""
    return multiprocessing.current_process().name != "MainProcess"


def end_with_parent() -> None:
    """In a worker, from now on: when the process that gives the jobs is gone, ask this one to stop (SIGTERM).

    A run in it is saved first. Safe to call again.
    """
    name = "ends with its parent"
    if is_worker() and all(thread.name != name for thread in threading.enumerate()):
        threading.Thread(target=_await_orphanage, args=(os.getppid(),), name=name, daemon=True).start()


def end_worker(stopped: SystemExit) -> NoReturn:
    """End this worker with the status of what stopped its job.

    Args:
        stopped: As a signal to stop raises it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(stopped.code if isinstance(stopped.code, int) else 1)


@contextlib.contextmanager
def workers_released() -> Iterator[None]:
    """A context after which joblib's workers are gone: at Python's end, where they would go, an interruption shows a
    traceback. Those that wait for a job end by themselves, and so tidy up; after an error all are killed.
    """
    try:
        yield
    except BaseException:
        _end_workers(kill=True)
        raise
    _end_workers(kill=False)


def _end_workers(kill: bool) -> None:
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    workers = None if loky is None else loky._executor  # what is public makes some where there are none
    if workers is not None:
        workers.shutdown(wait=True, kill_workers=kill)


def _await_orphanage(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
