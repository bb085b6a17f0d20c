import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import pytest

from autospec import AutoSpecError
from autospec.experiments.runs.folder import lock_run, run_folder
from autospec.experiments.runs.log import last_message, log_run
from autospec.experiments.runs.status import status, statuses, summary

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "status.py"


@pytest.fixture
def folder(tmp_path):
    return _run(tmp_path, "run", epochs=40)


def _run(output_dir, name, epochs, complete=False):
    """The folder of a run of 100 epochs, so many of which are done."""
    folder = run_folder(str(output_dir), name)
    folder.path.mkdir(parents=True)
    folder.config.write_text("width: 8\nepochs: 100\nseed: 1\n")
    with h5py.File(folder.spectra, "w") as file:
        file.attrs.update({"schema_version": 1, "run_id": name, "complete": complete})
        file["training/epoch"] = np.arange(epochs)
    return folder


def _begun(folder, seconds_ago, from_epoch):
    began = datetime.fromtimestamp(folder.spectra.stat().st_mtime - seconds_ago).astimezone()
    sessions = [{"began": began.isoformat(), "from_epoch": from_epoch}]
    folder.provenance.write_text(json.dumps({"sessions": sessions}))


def test_a_complete_run_is_done(tmp_path):
    assert status(_run(tmp_path, "run", 100, complete=True)).state == "done"


def test_a_locked_run_is_running_at_the_rate_since_it_began(folder):
    _begun(folder, seconds_ago=10, from_epoch=20)
    with lock_run(folder):
        found = status(folder)
    assert (found.state, found.detail) == ("running", "40 of 100 epochs, 2 epochs/s, about 30 s left")


def test_a_run_that_has_only_begun_has_no_rate(folder):
    folder.spectra.unlink()
    with lock_run(folder):
        assert status(folder).detail == "0 of 100 epochs"


def test_a_run_that_an_error_ended_has_failed(folder):
    with pytest.raises(RuntimeError), log_run(folder, keep_mistakes=False):
        raise RuntimeError("the GPU is gone\nsince noon")
    found = status(folder)
    assert (found.state, found.detail) == ("failed", "RuntimeError: the GPU is gone")
    assert "Traceback (most recent call last)" in folder.log.read_text()


def test_an_error_of_an_earlier_launch_counts_no_more(folder):
    folder.log.write_text("2026-01-02 03:04:05,678 ERROR lost\n2026-01-02 04:04:05,678 INFO run begins: 100 epochs\n")
    assert status(folder).state == "stale"


def test_a_run_that_was_told_to_stop_says_so(folder):
    folder.log.write_text("2026-01-02 03:04:05,678 WARNING run was saved after 40 of 100 epochs on SIGUSR2\n")
    found = status(folder)
    assert (found.state, found.detail) == ("stale", "40 of 100 epochs: was saved after 40 of 100 epochs on SIGUSR2")


def test_the_lock_of_a_dead_process_is_no_sign_of_life(folder):
    folder.lock.write_text(json.dumps({"pid": os.getpid(), "host": "here"}))
    assert status(folder).state == "stale"


def test_damaged_spectra_are_stale(folder):
    folder.spectra.write_bytes(b"not an archive")
    assert (status(folder).state, "damaged" in status(folder).detail) == ("stale", True)


def test_spectra_of_another_run_are_no_progress_of_this_one(folder):
    with h5py.File(folder.spectra, "a") as file:
        file.attrs["run_id"] = "another"
    found = status(folder)
    assert (found.state, found.detail) == (
        "failed",
        f"{folder.spectra} is of run another, so this run cannot go on with it; move it elsewhere",
    )


def test_a_mistake_leaves_no_log_unless_nobody_may_be_looking(folder):
    for keep, expected in ((False, None), (True, "width=-1: must be 1 or more")):
        with pytest.raises(AutoSpecError), log_run(folder, keep_mistakes=keep):
            raise AutoSpecError("width=-1: must be 1 or more")
        last = last_message(folder.log)
        assert (last and last.text) == expected


def test_the_summary_counts_states_and_lists_what_is_not_done(tmp_path):
    _run(tmp_path, "a", 100, complete=True)
    _run(tmp_path, "b", 40)
    assert summary(statuses(tmp_path), tmp_path).splitlines() == [
        f"{tmp_path}: 2 runs: 1 done, 0 running, 0 failed, 1 stale",
        "stale   b  40 of 100 epochs",
    ]


def test_a_hundred_runs_open_their_files_once_each_and_load_no_torch(tmp_path):
    for number in range(100):
        _run(tmp_path, f"run-{number}", 3, complete=number % 2 == 0)
    code = (
        "import h5py, sys\nfrom pathlib import Path\nfrom autospec.experiments.runs.status import statuses, summary\n"
        "opened, File = [], h5py.File\n"
        "h5py.File = lambda *arguments, **keywords: opened.append(1) or File(*arguments, **keywords)\n"
        "print(summary(statuses(Path(sys.argv[1])), sys.argv[1]))\nassert 'torch' not in sys.modules\n"
        "print(len(opened), 'files')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "100 runs: 50 done, 0 running, 0 failed, 50 stale" in result.stdout
    assert result.stdout.splitlines()[-1] == "100 files"


def test_the_command_prints_it(tmp_path):
    _run(tmp_path, "a", 100, complete=True)
    found, missing = (
        subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)
        for folder in (tmp_path, "/nowhere")
    )
    assert (found.returncode, found.stdout) == (0, f"{tmp_path}: 1 runs: 1 done, 0 running, 0 failed, 0 stale\n")
    assert missing.returncode == 1
    assert missing.stderr == "there is no folder /nowhere; name the output_dir of the sweep\n"
