"""A run over several processes: the same run, in the same folder, with the same numbers within rounding."""

import contextlib
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import pytest
from ranks import assert_same_file
from references import content

from autospec import open_spectra
from autospec.experiments.training.loop import Training

ROOT = Path(__file__).resolve().parents[2]

RUN = [
    "figure=fig4", "panel=A",
    "dataset.people.HC.men=8", "dataset.people.HC.women=6", "dataset.people.SZ.men=6", "dataset.people.SZ.women=5",
    "epochs=4", "width=4", "batch_size=7",
    "dataset.holdout=0.2", "introspection.permutations=19", "introspection.permutation_epochs=2",
    "introspection.statistics=[gradient,activation,adjoint]", "introspection.floor=formula",
]  # fmt: skip


def _folder(outputs):
    (folder,) = (outputs / "runs").iterdir()
    return folder


@pytest.mark.slow
def test_two_processes_make_the_run_of_one_and_go_on_with_it(run, tmp_path, monkeypatch):
    assert run(*RUN) == ""
    (tmp_path / "outputs").rename(tmp_path / "alone")
    alone = _folder(tmp_path / "alone")
    assert "introspection.engine" not in run(*RUN, "processes=2")
    folder = _folder(tmp_path / "outputs")
    assert folder.name == alone.name
    assert json.loads((folder / "provenance.json").read_text())["processes"] == 2
    assert json.loads((alone / "provenance.json").read_text())["processes"] == 1
    assert_same_file(folder / "spectra.h5", alone / "spectra.h5", tolerance=2e-4)
    with h5py.File(folder / "spectra.h5") as file:
        assert file.attrs["processes"] == 2
        assert file.attrs["complete"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["processes=0"], "processes=0: must be 1 or more"),
        (["processes=2", "introspection.engine=fast"], "processes=2: engine=fast is for one process; allowed is hooks"),
        (["processes=3", "batch_size=2"], "processes=3: more than batch_size=2 samples; each needs one"),
    ],
)
def test_what_processes_cannot_be_is_said(arguments, message, run):
    assert message in run(*arguments)


PATIENCE_S = 300
SMALL = ["dataset.per_digit=10", "epochs=12", "width=4", "batch_size=15", "checkpoint_s=0", "processes=2"]


@pytest.fixture
def at_epoch(monkeypatch):
    """Do something in the middle of an epoch of the first process, once."""

    def at(epoch, act):
        one_epoch = Training._one_epoch

        def interrupted(self):
            if self.epoch == epoch:
                monkeypatch.setattr(Training, "_one_epoch", one_epoch)
                act()
            return one_epoch(self)

        monkeypatch.setattr(Training, "_one_epoch", interrupted)

    return at


def _kill_the_other():
    (other,) = multiprocessing.active_children()
    other.kill()
    other.join()


@pytest.fixture
def temporary_folder(monkeypatch):
    """A temporary folder that no other program uses; a short path, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="ranks-") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(name)
    tempfile.tempdir = None  # which was read from the environment


def _kill_the_launcher(arguments, folder, epochs):
    """Begin the run as a program, and kill its first process once so many epochs are saved; what it had started."""
    command = [sys.executable, str(ROOT / "run.py"), *arguments, f"output_dir={folder.parents[1]}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while len(open_spectra(folder / "spectra.h5").training) < epochs:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "nothing was saved"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [os.pidfd_open(int(pid)) for pid in children]
    finally:
        process.kill()
        process.communicate()


def _is_gone(process_fd):
    return bool(select.select([process_fd], [], [], 20.0)[0])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_run_whose_processes_are_killed_or_stopped_ends_as_if_undisturbed(run, at_epoch, tmp_path, temporary_folder):
    assert run(*SMALL) == ""
    undisturbed = content(_folder(tmp_path / "outputs") / "spectra.h5")
    (tmp_path / "outputs").rename(tmp_path / "undisturbed")

    at_epoch(3, _kill_the_other)
    said = run(*SMALL)
    line = "process 1 of 2 was ended by SIGKILL (out of memory?); the same command goes on from the last checkpoint"
    assert line in said
    assert "\n" not in said
    folder = _folder(tmp_path / "outputs")
    assert len(open_spectra(folder / "spectra.h5").training) == 3

    at_epoch(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run(*SMALL) == "143"
    assert len(open_spectra(folder / "spectra.h5").training) == 6
    assert multiprocessing.active_children() == []

    started = _kill_the_launcher(SMALL, folder, 8)
    assert started
    assert all(_is_gone(process_fd) for process_fd in started)
    assert not open_spectra(folder / "spectra.h5").complete

    assert run(*SMALL) == ""
    assert content(folder / "spectra.h5") == undisturbed
    assert sorted(left.name for left in folder.iterdir()) == sorted(
        left.name for left in _folder(tmp_path / "undisturbed").iterdir()
    )
    assert not list(temporary_folder.glob("autospec-*"))
