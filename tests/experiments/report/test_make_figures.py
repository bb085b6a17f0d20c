"""The command line of scripts/make_figures.py; what it makes is tested in test_figure_files.py."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "make_figures.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figure", "9"], "--figure 9: there is no figure 9; allowed are 1, 2, 3, 4, 5, 6, 7, 8, fnc"),
        (["panel=A"], "panel=A: figures are chosen by --figure, with all their panels; --preset likewise"),
        (["seed=1,2"], "seed=1,2: a figure of several seeds is figure.seeds=[1,2]"),
        (["--figure", "1", "--jobs", "0"], "--jobs 0: must be 1 or more"),
        (["--figure", "1", "widht=3"], "unknown key 'widht'; did you mean 'width'?"),
    ],
)
def test_a_mistake_ends_in_one_line(tmp_path, arguments, message):
    command = [sys.executable, str(SCRIPT), *arguments, f"output_dir={tmp_path / 'outputs'}"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.splitlines()) == (1, [message])
    assert not (tmp_path / "outputs").exists()
