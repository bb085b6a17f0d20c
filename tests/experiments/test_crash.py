"""Runs that are killed: the file always opens, and the same command goes on to the same numbers."""

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from references import content

from autospec import open_spectra
from autospec.experiments.runs.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
RUN = ["dataset.per_digit=20", "epochs=600", "width=8", "batch_size=40", "introspection.every=3", "checkpoint_s=0.1"]
KILLS = 4
PATIENCE_S = 120


def _start(output_dir: Path) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "run.py"), *RUN, f"output_dir={output_dir}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finished(output_dir: Path) -> Path:
    process = _start(output_dir)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    (folder,) = (output_dir / "runs").iterdir()
    return folder / "spectra.h5"


def _checkpoint(output_dir: Path) -> tuple[int, ...]:
    """What tells one checkpoint from the next; empty where there is none."""
    return tuple(path.stat().st_ino for path in output_dir.glob("runs/*/checkpoint.pt"))


def _killed_after_a_checkpoint(output_dir: Path, more_s: float) -> None:
    """Begin the run, or go on with it, and kill it so many seconds after it has saved something new."""
    before = _checkpoint(output_dir)
    process = _start(output_dir)
    deadline = time.monotonic() + PATIENCE_S
    while _checkpoint(output_dir) in ((), before):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "nothing was saved"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(more_s)
    assert process.poll() is None, "it ended before it could be killed"
    process.kill()
    process.communicate()


def _saved_epochs(checkpoint: Path) -> int:
    return read_checkpoint(checkpoint)["training"]["recorder"]["epoch"]


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_if_undisturbed(tmp_path):
    undisturbed = content(_finished(tmp_path / "undisturbed"))
    moments = random.Random(3)
    reached = 0
    for _ in range(KILLS):
        _killed_after_a_checkpoint(tmp_path / "killed", moments.uniform(0, 0.2))
        (path,) = (tmp_path / "killed").glob("runs/*/spectra.h5")
        spectra = open_spectra(path)
        assert not spectra.complete
        saved = _saved_epochs(path.with_name("checkpoint.pt"))
        assert saved > reached  # each launch comes further
        assert len(spectra.training) >= saved  # what a checkpoint held is never lost; more is written just before it
        reached = saved
    assert content(_finished(tmp_path / "killed")) == undisturbed
    sessions = json.loads((path.parent / "provenance.json").read_text())["sessions"]
    assert len(sessions) == KILLS + 1
    assert all(0 < session["from_epoch"] < session["to_epoch"] for session in sessions[1:])
    assert all(session["wall_s"] > 0 and session["peak_memory_mb"] > 0 for session in sessions)
    assert sorted(left.name for left in path.parent.iterdir()) == [
        "config.yaml",
        "provenance.json",
        "run.log",
        "spectra.h5",
    ]
