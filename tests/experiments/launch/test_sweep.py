"""Sweeps: checked before anything is launched, finished runs skipped cheaply, failures in a table."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from hydra.core.plugins import Plugins
from submitit.core.utils import UncompletedJobError

from autospec import open_spectra
from autospec.experiments.config.grid import compose_config
from autospec.experiments.plan import plan_run
from autospec.experiments.runs.folder import lock_run
from autospec.experiments.runs.status import statuses

ROOT = Path(__file__).resolve().parents[3]
TINY = ["dataset.per_digit=6", "epochs=3", "width=4"]


@pytest.fixture
def launched(monkeypatch):
    """The jobs that a sweep would launch, none of which is."""
    Plugins.instance()  # Hydra's own modules are loaded anew when it looks for plugins
    jobs = []
    monkeypatch.setattr("autospec.experiments.launch.sweep.Sweep._launch", lambda self, free: jobs.extend(free) or [])
    monkeypatch.setattr("autospec.experiments.launch.sweep.Sweep._failures", lambda self, free, returns: [])
    monkeypatch.setattr("shutil.which", lambda command: f"/usr/bin/{command}")
    return jobs


@pytest.mark.slow
def test_every_command_of_the_page_on_clusters_passes(run, launched):
    page = (ROOT / "docs" / "cluster.md").read_text().replace("\\\n", " ")
    commands = [line.split()[2:] for line in re.findall(r"^python run\.py .*$", page, re.MULTILINE)]
    assert len(commands) == 3
    for command in commands:
        assert run(*[argument for argument in command if not argument.startswith("output_dir=")]) == ""
    assert len(launched) == 6 + 48 + 6  # a trial, the whole paper, one machine


@pytest.mark.parametrize(
    "asked",
    [
        "hydra.launcher.gpus_per_node=1",
        "hydra.launcher.gpus_per_task=1",
        "hydra.launcher.gres='gpu:a100:1'",
        "+hydra.launcher.additional_parameters.gpus=1",
    ],
)
def test_a_gpu_must_be_asked_for(run, launched, asked):
    sweep = ["-m", *TINY, "device=cuda", "hydra/launcher=slurm"]
    ask = "device=cuda: hydra/launcher=slurm asks for no GPU; add hydra.launcher.gpus_per_node=1"
    assert run(*sweep).splitlines()[1:] == [f"  {ask}"]
    assert run(*sweep, asked) == ""


def test_problems_of_values_and_of_the_launcher_are_listed_together(run, launched, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda command: None)
    message = run("-m", *TINY, "seed=-1,1", "hydra/launcher=slurm")
    assert message.splitlines() == [
        "nothing was launched:",
        "  seed=-1: must be between 0 and 2^63 - 1 (seed=-1)",
        "  hydra/launcher=slurm: there is no sbatch on this machine",
    ]
    assert launched == []


def test_a_gpu_that_this_machine_has_not_is_named_before_anything_runs(run, launched, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "device=cuda: torch finds no CUDA GPU" in run("-m", *TINY, "seed=1,2", "device=cuda")
    assert launched == []


@pytest.mark.parametrize("processes", ["0", "-2", "many"])
def test_a_number_of_processes_that_cannot_be(run, launched, processes):
    message = run("-m", *TINY, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={processes}")
    assert message.splitlines()[1] == (
        f"  hydra.launcher.n_jobs={processes}: must be 1 or more, or -1 for one for each processor"
    )


def test_a_key_that_a_launcher_has_not_is_named(run):
    for launcher in ("slurm", "joblib"):
        message = run("-m", *TINY, f"hydra/launcher={launcher}", "hydra.launcher.partion=gpu")
        assert message == "unknown key 'hydra.launcher.partion'; the files in conf/hydra list the keys of launchers"


def test_a_thousand_finished_jobs_are_skipped_with_one_composition_and_without_torch(tmp_path):
    output_dir = tmp_path / "outputs"
    _finish_thousand(output_dir)
    code = (
        "import sys\nfrom hydra._internal.config_loader_impl import ConfigLoaderImpl as Loader\n"
        "from autospec.experiments.launch.command_line import main\n"
        "composed, compose = [], Loader.load_sweep_config\n"
        "Loader.load_sweep_config = lambda *arguments: composed.append(1) or compose(*arguments)\n"
        "main()\nassert 'torch' not in sys.modules\nassert len(composed) == 1, composed"
    )
    sweep = ["-m", *TINY, "task=autoencoding,classification", "seed=range(500)", f"output_dir={output_dir}"]
    result = subprocess.run([sys.executable, "-c", code, *sweep], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "1000 jobs: 0 to run, 1000 complete, 0 named twice\n"


def _finish_thousand(output_dir):
    for task in ("autoencoding", "classification"):
        config = plan_run(compose_config(ROOT / "conf", [*TINY, f"task={task}", f"output_dir={output_dir}"])).config
        for seed in range(500):
            folder = plan_run(replace(config, seed=seed)).folder
            folder.path.mkdir(parents=True)
            with h5py.File(folder.spectra, "w") as file:
                file.attrs.update({"schema_version": 1, "run_id": folder.run_id, "complete": True})


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"schema_version": 1, "run_id": "another"}, "spectra.h5 is of run another, so this run cannot go on with it"),
        ({"schema_version": 1}, "spectra.h5 is not of a run, so this run cannot go on with it"),
        ({"schema_version": 2}, "spectra.h5 has schema_version 2; this program reads 1"),
        ({}, "spectra.h5 is an HDF5 file, but not of spectra"),
    ],
    ids=["another run", "no run", "a newer schema", "no spectra"],
)
def test_a_file_that_is_not_the_run_s_is_named_and_left_alone(run, launched, tmp_path, attributes, expected):
    folder = plan_run(compose_config(ROOT / "conf", [*TINY, "seed=1", f"output_dir={tmp_path / 'outputs'}"])).folder
    folder.path.mkdir(parents=True)
    with h5py.File(folder.spectra, "w") as file:
        file.attrs.update(attributes)
    before = folder.spectra.read_bytes()
    alone, sweep = run(*TINY, "seed=1"), run("-m", *TINY, "seed=1,2")
    assert alone.startswith(f"{folder.path}/{expected}")
    assert len(alone.splitlines()) == 1
    assert sweep.splitlines() == ["nothing was launched:", f"  {alone} (seed=1)"]
    assert launched == []
    assert list(folder.path.iterdir()) == [folder.spectra]
    assert folder.spectra.read_bytes() == before


def test_a_key_of_the_data_set_that_only_the_jobs_have(run, launched):
    """Hydra looks for it in the default data set, as long as the jobs' own are not chosen."""
    keys = ["dataset.time_points=20", "dataset.group_by=[diagnosis]", "introspection.permutations=0"]
    assert run("-m", "figure=fig5,fig6", "panel=A", *keys) == ""
    assert [job.plan.config.dataset.time_points for job in launched] == [20, 20]
    assert [job.plan.config.dataset.group_by for job in launched] == [["diagnosis"]] * 2
    launched.clear()
    message = run("-m", "dataset=sinusoid,mnist", "dataset.per_class=5", "architecture=mlp")
    expected = "dataset.per_class: no key of the data set that is chosen; it is one of sinusoid"
    assert message.splitlines()[1] == f"  {expected} (dataset=mnist)"
    assert launched == []


def test_what_several_jobs_name_is_launched_once_as_the_first_has_it(run, launched):
    assert run("-m", "figure=fig1", "panel=G,A,B,H,C", *TINY) == ""
    assert [job.label for job in launched] == ["panel=G", "panel=B", "panel=C"]


def test_a_job_whose_time_was_up_too_often_says_which_key_allows_more(run, tmp_path, monkeypatch):
    def stopped(*_):
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    monkeypatch.setattr("autospec.experiments.training.loop.Training.epochs_until", stopped)
    line = run("-m", *TINY, "seed=1,2").splitlines()[1]
    assert "its time was up more often than hydra.launcher.max_num_timeout allows" in line
    assert "its time was up more often" in statuses(tmp_path / "outputs")[0].detail


def test_a_sweep_may_be_asked_for_anywhere_in_the_line(run, launched):
    assert run(*TINY, "--multirun", "seed=1,2") == ""
    assert len(launched) == 2


def test_a_run_that_is_being_worked_on_is_left_and_named(run, tmp_path):
    config = compose_config(ROOT / "conf", [*TINY, "seed=1", f"output_dir={tmp_path / 'outputs'}"])
    folder = plan_run(config).folder
    with lock_run(folder):
        message = run("-m", *TINY, "seed=1,2")
        alone = run(*TINY, "seed=1")
    assert message.splitlines()[:2] == [
        "1 of 2 runs failed:",
        f"  {folder.path}  is being worked on by process {os.getpid()} on {os.uname().nodename}",
    ]
    assert alone == f"run {folder.run_id} is being worked on by process {os.getpid()} on {os.uname().nodename}"
    assert not folder.path.exists() or not folder.spectra.exists()


def test_an_unexpected_error_stands_in_the_table_and_its_traceback_in_the_log(run, tmp_path, monkeypatch):
    class Strange(Exception):
        def __init__(self, one: int, two: int) -> None:  # cannot be unpickled: its arguments are not kept
            super().__init__(f"{one} and {two}")

    def fail(*_):
        raise Strange(1, 2)

    monkeypatch.setattr("autospec.experiments.training.loop.Training.epochs_until", fail)
    message = run("-m", *TINY, "seed=1,2")
    runs = sorted((tmp_path / "outputs" / "runs").iterdir())
    assert message.splitlines()[0] == "2 of 2 runs failed:"
    assert sorted(message.splitlines()[1:3]) == [f"  {folder}  Strange: 1 and 2" for folder in runs]
    assert all("in fail\n    raise Strange(1, 2)" in (folder / "run.log").read_text() for folder in runs)


@pytest.mark.slow
def test_processes_of_one_thread_give_the_same_table(tmp_path):
    sweep = [*TINY, "learning_rate=1e30,1e-3,1e-2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command = [sys.executable, str(ROOT / "run.py"), "-m", *sweep, f"output_dir={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "1 of 3 runs failed:" in result.stderr
    complete = [open_spectra(folder / "spectra.h5").complete for folder in (tmp_path / "runs").iterdir()]
    assert sorted(complete) == [False, True, True]
