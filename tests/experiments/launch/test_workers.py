"""Processes that make runs side by side: a signal to stop ends them, and so does the end of who gives the jobs."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest

from autospec.experiments.launch import command_line, workers

ORPHAN = """
import os, sys, time
import joblib
from autospec.experiments.launch.workers import end_with_parent

def job():
    end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(20)  # a job that goes on where nobody is left to take its result
    print("went on", flush=True)
    os._exit(0)

joblib.Parallel(n_jobs=2)([joblib.delayed(job)() for _ in range(4)])
"""


RELEASED = """
import multiprocessing, os, sys
import joblib
from autospec.experiments.launch.workers import workers_released

def job():
    sys.held = multiprocessing.RLock()  # as tqdm holds one, which a worker must give back
    return os.getpid()

with workers_released():
    pass  # nothing yet
pids = set()
try:
    with workers_released():
        pids |= set(joblib.Parallel(n_jobs=2)([joblib.delayed(job)() for _ in range(8)]))
        if sys.argv[1] == "error":
            raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
for pid in pids:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        print("gone")
"""


def _as_joblib(job):
    """Take whatever ends a job for its result."""
    try:
        job()
    except BaseException:  # noqa: BLE001 (as joblib does)
        os._exit(7)


def _stopped(config, in_sweep):
    raise SystemExit(128 + signal.SIGTERM)


def test_a_job_that_a_signal_stopped_ends_its_worker(monkeypatch):
    monkeypatch.setattr(command_line, "run", _stopped)
    process = multiprocessing.get_context("fork").Process(
        target=_as_joblib, args=(lambda: command_line.run_in_sweep(None),)
    )
    process.start()
    process.join()
    assert process.exitcode == 143


def test_it_stops_a_sweep_without_workers_as_any_command(monkeypatch):
    monkeypatch.setattr(command_line, "run", _stopped)
    with pytest.raises(SystemExit, match="143"):
        command_line.run_in_sweep(None)
    assert not any(thread.name == "ends with its parent" for thread in threading.enumerate())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_gave_them_jobs(how):
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True) as parent:
        pids = {int(parent.stdout.readline()) for _ in range(2)}
        assert len(pids) == 2
        parent.send_signal(how)
        # every worker holds the other end of the pipe: it is closed when the last one is gone
        assert parent.stdout.read() == ""
    assert workers.is_worker() is False


@pytest.mark.parametrize("end", ["done", "error"])
def test_waiting_workers_are_released_before_the_end_of_python(end):
    said = subprocess.run([sys.executable, "-c", RELEASED, end], capture_output=True, text=True, check=True)
    assert set(said.stdout.split()) == {"gone"}
    if end == "done":
        assert said.stderr == ""  # no semaphore that nobody has given back
