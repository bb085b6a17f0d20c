"""The campaigns of `make faults`: what they look at, without the commands that they end."""

import importlib
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import record

SCRIPTS = Path(__file__).parent.parent / "scripts"
SLEEPER = [sys.executable, "-S", "-c", "import signal; print('a run begins: 20 epochs', flush=True); signal.pause()"]


@pytest.fixture
def environments(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("environments")


@pytest.fixture
def figure_faults(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("figure_faults")


def _run(folder):
    path = folder / "runs" / "one" / "spectra.h5"
    path.parent.mkdir(parents=True)
    record(path, epochs=2)
    return path


def _campaign(figure_faults, folder, monkeypatch, command):
    campaign = figure_faults.Campaign(folder, random.Random(0), [], folder, start_s=0.2, work_s=0.2)

    def launched(output):
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    monkeypatch.setattr(campaign, "_launched", launched)
    return campaign


def test_a_command_is_ended_at_a_moment_by_a_signal(figure_faults, tmp_path, monkeypatch):
    campaign = _campaign(figure_faults, tmp_path, monkeypatch, SLEEPER)
    for _ in range(3):
        assert signal.Signals[campaign._ended_early(tmp_path)] in figure_faults.SIGNALS


def test_a_command_that_is_done_before_is_not_ended(figure_faults, tmp_path, monkeypatch):
    campaign = _campaign(figure_faults, tmp_path, monkeypatch, [sys.executable, "-S", "-c", ""])
    campaign.moments.uniform = lambda low, high: 60
    assert campaign._ended_early(tmp_path) == ""


def test_runs_go_on_with_the_code_that_they_began_with(figure_faults, tmp_path):
    checkout = figure_faults._with_few_images(figure_faults.copied_checkout(tmp_path))
    package = checkout / "src" / "autospec" / "experiments"
    assert not (package / "conf").is_symlink() or (package / "conf").resolve() == (checkout / "conf").resolve()
    assert "per_digit: 20" in (package / "conf" / "dataset" / "mnist.yaml").read_text("utf-8")


def test_a_command_that_fails_is_a_loss(figure_faults, tmp_path, monkeypatch):
    campaign = _campaign(figure_faults, tmp_path, monkeypatch, [sys.executable, "-c", "raise SystemExit('no')"])
    with pytest.raises(figure_faults.Loss, match="ended with 1:\nno"):
        campaign._finish(tmp_path)


def test_every_number_is_compared_and_a_damaged_file_is_a_loss(figure_faults, tmp_path):
    paths = [_run(tmp_path / name) for name in ("a", "b")]
    a, b = (figure_faults.results(tmp_path / name) for name in ("a", "b"))
    assert a == b and "one/layers/0/gradient" in a
    figure_faults.check_files(tmp_path / "a")
    content = bytearray(paths[0].read_bytes())
    content[len(content) // 2] ^= 1
    paths[0].write_bytes(content)
    with pytest.raises(figure_faults.Loss, match="damaged"):
        figure_faults.check_files(tmp_path / "a")


def test_a_traceback_is_a_loss(environments, tmp_path):
    trial = environments.Trial(tmp_path, environments.Environment(), SCRIPTS.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", "1 / 0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with pytest.raises(environments.Loss, match="ZeroDivisionError"):
        trial._ended(process, refused=True)
