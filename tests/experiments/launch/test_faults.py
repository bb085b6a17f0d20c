"""A short fault campaign; `make faults` is the long one."""

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "faults.py"


@pytest.fixture
def faults(monkeypatch):
    """The campaign's module, which lies among the scripts."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("faults", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["faults"]


def _left(folder, epochs, recorded, saved, complete=False):
    """What a killed run of a sweep in ``folder`` left: spectra, and a checkpoint of an epoch."""
    run = folder / "runs" / "run"
    run.mkdir(parents=True, exist_ok=True)
    with h5py.File(run / "spectra.h5", "w") as file:
        file.attrs.update({"schema_version": 1, "complete": complete})
        file["training/epoch"] = np.array(epochs, dtype=np.int64)
        file["epoch"] = np.array(recorded, dtype=np.int64)
        file["groups/name"] = np.array([b"all"])
        file["groups/margin"] = np.zeros(1, dtype=bool)
        file["groups/members"] = np.ones((1, 1), dtype=bool)
    torch.save({"training": {"recorder": {"epoch": saved}}}, run / "checkpoint.pt")


LOSSES = {
    "an epoch doubled": ([0, 1, 2, 2, 3], [0, 2], 3),
    "an epoch lost in between": ([0, 1, 3], [0, 2], 3),
    "epochs lost that a checkpoint held": ([0, 1], [0], 3),
    "spectra doubled": ([0, 1, 2], [0, 2, 2], 3),
    "spectra lost": ([0, 1, 2], [0], 3),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_campaign_sees_what_is_lost_or_doubled(faults, tmp_path, loss):
    campaign = faults.Campaign(tmp_path, 1, random.Random(0), tmp_path)
    _left(tmp_path, [0, 1, 2], [0, 2], 3)
    campaign._check(tmp_path)
    _left(tmp_path, *LOSSES[loss])
    with pytest.raises(faults.Loss, match="spectra"):
        campaign._check(tmp_path)


def test_the_campaign_sees_epochs_that_an_earlier_kill_had_left(faults, tmp_path):
    campaign = faults.Campaign(tmp_path, 1, random.Random(0), tmp_path)
    _left(tmp_path, [0, 1, 2], [0, 2], 3)
    campaign._check(tmp_path)
    _left(tmp_path, [0, 1], [0], 1)  # whole, but begun anew
    with pytest.raises(faults.Loss, match="holds 2 epochs, a checkpoint 3"):
        campaign._check(tmp_path)


def test_the_campaign_sees_a_file_that_cannot_be_read(faults, tmp_path):
    _left(tmp_path, [0, 1, 2], [0, 2], 3)
    path = tmp_path / "runs" / "run" / "spectra.h5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(faults.Loss, match="cannot be read"):
        faults.Campaign(tmp_path, 1, random.Random(0), tmp_path)._check(tmp_path)


def test_the_campaign_sees_other_numbers_and_runs_that_are_not_done(faults, tmp_path):
    _left(tmp_path, [0, 1, 2], [0, 2], 3, complete=True)
    undisturbed = {"run": faults._numbers(tmp_path / "runs" / "run" / "spectra.h5")}
    faults._compare(tmp_path, undisturbed)
    for epochs, complete, expected in (([0, 1, 4], True, "differs from"), ([0, 1, 2], False, "is not complete")):
        _left(tmp_path, epochs, [0, 2], 3, complete=complete)
        with pytest.raises(faults.Loss, match=expected):
            faults._compare(tmp_path, undisturbed)
    with pytest.raises(faults.Loss, match="has the runs"):
        faults._compare(tmp_path / "nothing", undisturbed)


@pytest.mark.slow
def test_a_sweep_that_is_killed_loses_nothing():
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--runs", "3", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "no epoch lost or doubled, every number as undisturbed" in result.stderr.splitlines()[-1]
