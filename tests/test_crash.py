"""Runs that are killed: the file always opens, and the same command goes on to the same numbers."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from references import content

from autospec import open_spectra

ROOT = Path(__file__).resolve().parent.parent
RUN = ["dataset.per_digit=20", "epochs=900", "width=8", "batch_size=40", "introspection.every=3"]


def _start(output_dir: Path) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "run.py"), *RUN, f"output_dir={output_dir}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finished(output_dir: Path) -> Path:
    process = _start(output_dir)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (folder,) = (output_dir / "runs").iterdir()
    return folder / "spectra.h5"


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_if_undisturbed(tmp_path):
    undisturbed = content(_finished(tmp_path / "undisturbed"))
    moments = random.Random(3)
    last_epoch = -1
    for _ in range(4):
        process = _start(tmp_path / "killed")
        deadline = time.monotonic() + 60
        path = None
        while path is None and time.monotonic() < deadline and process.poll() is None:
            path = next(iter((tmp_path / "killed").glob("runs/*/spectra.h5")), None)
            if path is None:
                process_wait(process, 0.05)
        process_wait(process, moments.uniform(0.2, 3.0))
        process.kill()
        process.communicate()
        spectra = open_spectra(path)
        reached = int(spectra.training.shape[0])
        assert reached >= last_epoch  # nothing that a checkpoint held is ever lost
        last_epoch = reached if not spectra.complete else last_epoch
    assert content(_finished(tmp_path / "killed")) == undisturbed
    leftovers = [path.name for path in path.parent.iterdir()]
    assert sorted(leftovers) == ["config.yaml", "provenance.json", "run.log", "spectra.h5"]


def process_wait(process: subprocess.Popen, seconds: float) -> None:
    """Let a process go on for a while, or until it ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
