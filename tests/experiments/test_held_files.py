"""Files that another process holds open, for reading or writing: commands finish, and nothing is set aside."""

import subprocess
import sys
from pathlib import Path

import pytest

from autospec import open_spectra
from autospec.experiments.report.figures_command import main as figures
from autospec.experiments.runs.status import statuses

RUN = ["figure=fig1", "panel=A", "dataset.per_digit=10", "epochs=2", "introspection.permutations=19"]

HOLD = """
import fcntl, sys
import h5py
held = []
for path in sys.argv[2:]:
    stream = open(path, sys.argv[1] + "b")
    fcntl.flock(stream, fcntl.LOCK_EX if "+" in sys.argv[1] else fcntl.LOCK_SH)
    held.append(stream)
    if path.endswith(".h5"):
        held.append(h5py.File(path, sys.argv[1], locking=False))
print("held", flush=True)
sys.stdin.read()
"""
"""Holds files as a notebook and an HDF5 viewer would, until its input is closed."""


@pytest.fixture
def hold():
    """A function (folder, mode) that has another process hold every file of a folder open."""
    holders = []

    def held(folder: Path, mode: str) -> None:
        files = [str(path) for path in folder.rglob("*") if path.is_file()]
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, mode, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        holders.append(process)
        assert process.stdout.readline() == "held\n"

    yield held
    for process in holders:
        process.communicate()


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_finished_run_whose_files_are_held_is_complete(run, hold, tmp_path, mode):
    assert run(*RUN) == ""
    outputs = tmp_path / "outputs"
    hold(outputs, mode)
    before = _contents(outputs)
    assert run(*RUN) == ""
    assert [status.state for status in statuses(outputs)] == ["done"]
    assert _contents(outputs) == before


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_figures_are_drawn_from_files_that_are_held(hold, tmp_path, monkeypatch, mode):
    monkeypatch.chdir(tmp_path)
    overrides = [
        "dataset.per_digit=10",
        "epochs=3",
        "introspection.permutations=0",
        f"output_dir={tmp_path / 'outputs'}",
    ]
    monkeypatch.setattr(sys, "argv", ["figures", "--figure", "1", "--jobs", "2", *overrides])
    figures()
    outputs = tmp_path / "outputs"
    before = _contents(outputs)
    hold(outputs, mode)
    figures()  # up to date
    (outputs / "figures" / "figure_1.png").unlink()
    figures()  # drawn anew
    after = _contents(outputs)
    assert {name for name in before if name.startswith("runs/")} == {name for name in after if name.startswith("runs/")}
    assert all(open_spectra(path).complete for path in outputs.glob("runs/*/spectra.h5"))
    assert after["tables/figure_1_tests.csv"] == before["tables/figure_1_tests.csv"]
