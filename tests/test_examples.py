"""The programs in examples/ run as they stand, in a folder of their own, and leave what they say."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from autospec import open_spectra

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def run(name: str, folder: Path) -> str:
    """The standard output of an example."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, EXAMPLES / f"{name}.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here():
    tested = {"digits", "text_classifier", "brain_maps", "language_model", "eeg"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested | {"sources_of_text"}


@pytest.mark.slow
def test_digits(tmp_path):
    shown = run("digits", tmp_path)
    assert "groups   all, even, odd" in shown
    spectra = open_spectra(tmp_path / "digits.h5")
    assert spectra.complete
    assert spectra.training["training_loss"].iloc[-1] < 0.2
    assert (tmp_path / "digits.png").stat().st_size > 10_000


@pytest.mark.slow
def test_text_classifier(tmp_path):
    assert "query" in run("text_classifier", tmp_path)
    curve = open_spectra(tmp_path / "text.h5").training["training_loss"]
    assert curve.iloc[-1] < 0.6  # of two classes of equal size: 0.69 by chance


@pytest.mark.slow
def test_brain_maps(tmp_path):
    run("brain_maps", tmp_path)
    assert open_spectra(tmp_path / "maps.h5").layers == ["0", "2"]
    assert (tmp_path / "maps.png").stat().st_size > 10_000


@pytest.mark.slow
def test_language_model_of_one_loss_has_other_spectra_at_another_batch_size(tmp_path):
    lines = run("language_model", tmp_path).splitlines()
    assert [line.split(":")[0] for line in lines] == ["batch 8", "batch 32"]
    small, large = (open_spectra(tmp_path / f"batch_{size}.h5") for size in (8, 32))
    last = [float(s.training["training_loss"].iloc[-1]) for s in (small, large)]
    assert last[0] == pytest.approx(last[1], abs=0.02)
    largest = [float(s.scaled("head").isel(epoch=-1).sel(group="all", index=1)) for s in (small, large)]
    assert abs(largest[0] / largest[1] - 1) > 0.05


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # braindecode's own
def test_eeg(tmp_path, monkeypatch):
    if find_spec("braindecode") is None:
        pytest.skip("braindecode is not installed: make survey installs it")
    from survey.architectures import stand_in_for_torchaudio

    stand_in_for_torchaudio()
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "eeg.py"))
    spectra = open_spectra(tmp_path / "eeg.h5")
    assert spectra.group_names == ["all", "HC", "SZ"]
    assert len(spectra.layers) >= 4
