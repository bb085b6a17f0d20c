"""The command line of scripts/make_figures.py; what it makes is tested in test_files.py."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from autospec.experiments.report import figures_command

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


def test_networks_are_trained_by_all_processes_and_figures_drawn_by_one_each(monkeypatch):
    asked, drawn = [], []
    monkeypatch.setattr(figures_command, "retrain_missing", lambda plans, jobs: asked.append((plans, jobs)))
    monkeypatch.setattr(
        figures_command, "update_figure", lambda figure: drawn.append(figure) or f"files of {len(drawn)}"
    )
    processes = []

    def parallel(n_jobs):
        processes.append(n_jobs)
        return lambda work: [function(*arguments) for function, arguments, _ in work]

    monkeypatch.setattr(figures_command.joblib, "Parallel", parallel)
    figures = [SimpleNamespace(tested_runs=["G", "H"]), SimpleNamespace(tested_runs=["G"])]
    assert figures_command._update(figures, jobs=4) == ["files of 1", "files of 2"]
    assert asked == [(["G", "H"], 4), (["G"], 4)]
    assert processes == [2]
    assert drawn == figures
