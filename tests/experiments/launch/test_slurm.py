"""Sweeps on a real SLURM, a private one-node cluster: jobs through sbatch arrays, signals, requeues, dead jobs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_slurm import local_slurm, missing
from references import content

from autospec import open_spectra
from autospec.experiments.runs.status import statuses

ROOT = Path(__file__).resolve().parents[3]
TINY = ["figure=fig1", "dataset.per_digit=6", "epochs=3", "width=4"]
LONG = ["dataset.per_digit=20", "epochs=500", "width=8", "checkpoint_s=0.2", "seed=1,2"]
PATIENCE_S = 120.0

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.xdist_group("slurm")]  # one cluster for all


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment of a private cluster's users."""
    if missing():
        pytest.skip(f"there is no {missing()[0]}: apt-get install -y --no-install-recommends slurm-wlm munge")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, local_slurm(Path(folder)) as environment:
        # the many processes share what the first of them compiles
        compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{folder}/compiled"}
        yield environment | compiled | {"OMP_NUM_THREADS": "1"}


def _launch(environment: dict[str, str], output_dir: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "run.py"), "-m", *arguments, f"output_dir={output_dir}"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _finished(process: subprocess.Popen) -> tuple[int, str]:
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def _runs(output_dir: Path) -> list[Path]:
    return sorted((output_dir / "runs").glob("*"))


def _contents(output_dir: Path) -> dict[str, dict[str, bytes]]:
    """Every number of every run, all of which must be complete."""
    assert all(open_spectra(run / "spectra.h5").complete for run in _runs(output_dir))
    return {run.name: content(run / "spectra.h5") for run in _runs(output_dir)}


def _awaited(ask: Callable[[], Any]) -> Any:
    """The first answer that is not empty, asked for until patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := ask()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.1)
    return answer


def _sessions(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "provenance.json").read_text())["sessions"]


def test_an_array_of_six_jobs_gives_the_numbers_of_this_machine(cluster, tmp_path):
    sweep = [*TINY, "task=autoencoding,classification", "seed=1,2,3"]
    status, said = _finished(_launch(cluster, tmp_path / "here", *sweep))
    assert status == 0, said
    asks = ["hydra.launcher.gpus_per_node=1", "hydra.launcher.mem_gb=1", "hydra.launcher.array_parallelism=2"]
    status, said = _finished(_launch(cluster, tmp_path / "slurm", *sweep, "hydra/launcher=slurm", *asks))
    assert status == 0, said
    assert len(_runs(tmp_path / "slurm")) == 6
    assert _contents(tmp_path / "slurm") == _contents(tmp_path / "here")
    jobs = {_sessions(run)[0]["slurm_job"] for run in _runs(tmp_path / "slurm")}
    assert {job.split("_")[1] for job in jobs} == set("012345")


def test_one_failing_job_leaves_five_good_ones(cluster, tmp_path):
    rates = "learning_rate=1e30,1e-3,2e-3,3e-3,4e-3,5e-3"
    status, said = _finished(_launch(cluster, tmp_path, *TINY, rates, "hydra/launcher=slurm"))
    complete = {run: open_spectra(run / "spectra.h5").complete for run in _runs(tmp_path)}
    assert status != 0
    assert sorted(complete.values()) == [False, True, True, True, True, True]
    (failed,) = (run for run in complete if not complete[run])
    assert "1 of 6 runs failed:" in said
    assert f"  {failed}  the loss is " in said
    assert "Traceback (most recent call last)" in (failed / "run.log").read_text()
    assert [(entry.run_id, entry.state) for entry in statuses(tmp_path) if entry.state != "done"] == [
        (failed.name, "failed")
    ]


def test_a_requeued_and_a_killed_job_end_as_if_undisturbed(cluster, tmp_path):
    status, said = _finished(_launch(cluster, tmp_path / "here", *LONG))
    assert status == 0, said
    launcher = _launch(cluster, tmp_path / "slurm", *LONG, "hydra/launcher=slurm")
    told, killed = _awaited(lambda: _with_checkpoint(tmp_path / "slurm", 2))
    job = _sessions(told)[0]["slurm_job"]
    subprocess.run(["scancel", "--signal=USR2", job], env=cluster, check=True)
    os.kill(_sessions(killed)[0]["pid"], signal.SIGKILL)
    status, said = _finished(launcher)
    assert status != 0
    assert f"  {killed}  SLURM job {_sessions(killed)[0]['slurm_job']} ended without a result" in said
    assert "1 of 2 runs failed:" in said
    assert [session["slurm_job"] for session in _sessions(told)] == [job, job]
    assert "on SIGUSR2" in (told / "run.log").read_text()
    status, said = _finished(_launch(cluster, tmp_path / "slurm", *LONG, "hydra/launcher=slurm"))
    assert status == 0, said
    assert "2 jobs: 1 to run, 1 complete" in said
    assert all(_sessions(run)[1]["from_epoch"] > 0 for run in (told, killed))
    assert _contents(tmp_path / "slurm") == _contents(tmp_path / "here")


def _with_checkpoint(output_dir: Path, runs: int) -> list[Path]:
    found = [run for run in _runs(output_dir) if (run / "checkpoint.pt").exists()]
    return found if len(found) == runs else []


def test_what_sbatch_refuses_is_said_in_a_line(cluster, tmp_path):
    arguments = [*TINY, "hydra/launcher=slurm", "hydra.launcher.partition=nowhere"]
    status, said = _finished(_launch(cluster, tmp_path, *arguments))
    assert status != 0
    assert said.splitlines()[-1].startswith("hydra/launcher=slurm: sbatch: error: ")
    assert "partition" in said.splitlines()[-1]
