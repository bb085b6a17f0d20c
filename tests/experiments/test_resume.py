"""Runs that are stopped between two epochs, and what the same command makes of them."""

import json
import os
import signal
from pathlib import Path

import pytest
from references import content

from autospec import open_spectra
from autospec.experiments.runs.checkpoint import Checkpoints
from autospec.experiments.runs.status import statuses
from autospec.experiments.training.loop import Training
from autospec.store import file as store_file

RUN = ["dataset.per_digit=10", "epochs=12", "width=4", "batch_size=15", "dataset.holdout=0.2", "checkpoint_s=0"]


@pytest.fixture
def stopped(monkeypatch):
    """Send this process a signal in the middle of an epoch; returns the epoch at which that is done."""

    def stop(number: signal.Signals, epoch: int = 7) -> None:
        one_epoch = Training._one_epoch

        def interrupted(self: Training) -> float:
            if self.epoch == epoch:
                monkeypatch.setattr(Training, "_one_epoch", one_epoch)
                os.kill(os.getpid(), number)
            return one_epoch(self)

        monkeypatch.setattr(Training, "_one_epoch", interrupted)

    return stop


@pytest.fixture
def undisturbed(run, tmp_path):
    """Every number of the run that nobody stops."""
    assert run(*RUN) == ""
    numbers = content(_folder(tmp_path) / "spectra.h5")
    (tmp_path / "outputs").rename(tmp_path / "undisturbed")
    return numbers


def _folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    return folder


def _sessions(folder: Path) -> list[dict]:
    return json.loads((folder / "provenance.json").read_text())["sessions"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGTERM, "143"),
        (signal.SIGUSR2, "140"),
        (signal.SIGINT, "interrupted; the same command goes on from the last checkpoint"),
    ],
    ids=["TERM", "USR2", "INT"],
)
def test_a_signal_stops_after_the_epoch_and_the_run_goes_on_there(
    run, stopped, undisturbed, tmp_path, capfd, number, message
):
    stopped(number)
    assert run(*RUN) == message
    folder = _folder(tmp_path)
    assert f"{folder.name} was saved after 8 of 12 epochs on {number.name}" in capfd.readouterr().err
    assert len(open_spectra(folder / "spectra.h5").training) == 8
    (status,) = statuses(tmp_path / "outputs")
    assert (status.state, status.detail) == (
        "stale",
        f"8 of 12 epochs: was saved after 8 of 12 epochs on {number.name}",
    )
    assert run(*RUN) == ""
    assert [(session["from_epoch"], session["to_epoch"]) for session in _sessions(folder)] == [(0, 8), (8, 12)]
    assert content(folder / "spectra.h5") == undisturbed
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "provenance.json", "run.log", "spectra.h5"]


def test_spectra_are_written_with_each_checkpoint_and_in_the_end(run, monkeypatch):
    """The recorder's own timer, which would say at each epoch that it is time, decides nothing."""
    written = []
    monkeypatch.setattr(store_file.SpectraFile, "is_due", True)
    write = store_file.write_spectra
    noted = lambda path, *rest: written.append(path.name) or write(path, *rest)  # noqa: E731
    monkeypatch.setattr(store_file, "write_spectra", noted)
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, state: save(self, state) or written.append("checkpoint"))
    assert run(*RUN) == ""
    assert written == ["spectra.h5", "checkpoint"] * 12 + ["spectra.h5"]


def test_a_signal_stops_the_whole_sweep(run, stopped, tmp_path):
    stopped(signal.SIGTERM)
    assert run("-m", *RUN, "seed=1,2,3") == "143"
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("damaged", "epoch"), [(["checkpoint.pt"], 7), (["checkpoint.pt", "checkpoint.previous.pt"], 0)]
)
def test_a_corrupted_checkpoint_falls_back_to_the_one_before(
    run, stopped, undisturbed, tmp_path, capfd, damaged, epoch
):
    stopped(signal.SIGTERM)
    run(*RUN)
    folder = _folder(tmp_path)
    for name in damaged:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    assert run(*RUN) == ""
    assert "checkpoint.pt is damaged" in capfd.readouterr().err
    assert _sessions(folder)[-1]["from_epoch"] == epoch
    assert content(folder / "spectra.h5") == undisturbed


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("code", "another", "code was another and is "), ("gpu", "NVIDIA H200", "gpu was NVIDIA H200 and is none")],
)
def test_other_code_or_devices_must_be_accepted(run, stopped, undisturbed, tmp_path, key, value, expected):
    stopped(signal.SIGTERM)
    run(*RUN)
    folder = _folder(tmp_path)
    provenance = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(provenance | {key: value}))
    before = (folder / "spectra.h5").read_bytes()
    message = run(*RUN)
    assert message.startswith(f"run {folder.name} began under other conditions, or may have: {expected}")
    assert message.endswith("Go on all the same with accept_changes=true, or remove its folder to begin anew")
    assert (folder / "spectra.h5").read_bytes() == before
    assert run(*RUN, "accept_changes=true") == ""
    assert _sessions(folder)[-1]["accepted_changes"][0].startswith(expected)
    assert content(folder / "spectra.h5") == undisturbed


@pytest.mark.parametrize(("left", "expected"), [(None, "is missing"), ("{", "is damaged")])
def test_conditions_that_nobody_knows_any_more_must_be_accepted(run, stopped, undisturbed, tmp_path, left, expected):
    stopped(signal.SIGTERM)
    run(*RUN)
    provenance = _folder(tmp_path) / "provenance.json"
    provenance.unlink()
    if left is not None:
        provenance.write_text(left)
    assert (
        f"{provenance} {expected}; the original settings are unknown. Go on all the same with accept_changes=true"
        in run(*RUN)
    )
    assert run(*RUN, "accept_changes=true") == ""
    assert _sessions(_folder(tmp_path))[-1]["accepted_changes"] == [
        f"{provenance} {expected}; the original settings are unknown"
    ]
    assert content(_folder(tmp_path) / "spectra.h5") == undisturbed


def test_another_number_of_threads_must_be_accepted(run, stopped, tmp_path):
    stopped(signal.SIGTERM)
    run(*RUN)
    assert "threads was 1 and is 2" in run(*RUN, "threads=2")


def test_spectra_that_are_damaged_while_a_checkpoint_is_there_make_the_run_begin_anew(
    run, stopped, undisturbed, tmp_path
):
    stopped(signal.SIGTERM)
    run(*RUN)
    folder = _folder(tmp_path)
    (folder / "spectra.h5").write_bytes(b"not an archive")
    assert run(*RUN) == ""
    assert _sessions(folder)[-1]["from_epoch"] == 0
    assert (folder / "spectra.damaged.h5").exists()
    assert content(folder / "spectra.h5") == undisturbed
