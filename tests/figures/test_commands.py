"""autospec show and autospec compare: what they print, and one line for every mistake."""

import numpy as np
import pandas as pd
import pytest
from small_runs import design, record

from autospec.figures import compare_command, power_command, show_command
from autospec.figures.terminal import as_text, sparkline


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a run and the file of another."""
    folder = tmp_path_factory.mktemp("runs")
    record(folder / "spectra.h5", epochs=5)
    record(folder / "other.h5", epochs=5, changed_at=2)
    return folder, folder / "other.h5"


def test_show_describes_and_summarises(runs, capsys):
    folder, _ = runs
    show_command.main([str(folder)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Spectra: {folder / 'spectra.h5'}"
    assert any(line.startswith("groups   all, SZ, HC") for line in lines)
    (row,) = [line for line in lines if line.startswith("0 ")]
    assert "rank" in row


def test_show_draws(runs, tmp_path, capsys):
    folder, other = runs
    show_command.main([str(folder), "--layers", "0", "--groups", "SZ", "--picture", str(tmp_path / "a.png")])
    show_command.main([str(other), "--differences", "SZ", "HC", "--picture", str(tmp_path / "b.pdf")])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF")
    out = capsys.readouterr().out
    assert str(tmp_path / "a.png") in out


def test_show_tests_two_groups(tmp_path, runs, capsys):
    record(tmp_path / "tested.h5", epochs=3, permutation_design=design((0, 1)))
    show_command.main([str(tmp_path / "tested.h5"), "--differences", "HC", "SZ", "--layers", "2"])
    lines = capsys.readouterr().out.partition("labels of subjects permuted\n")[2].splitlines()
    assert lines[0].split()[:4] == ["layer", "p", "p_family", "excess_log2_ratio"]
    assert len(lines) == 2
    assert 0 < float(lines[1].split()[1]) <= 1
    show_command.main([str(runs[0]), "--differences", "SZ", "HC"])
    assert "the file holds no permutations (the recorder's" in capsys.readouterr().out


def test_compare_says_where_runs_part(runs, capsys):
    folder, other = runs
    compare_command.main([str(folder), str(other)])
    out = capsys.readouterr().out
    assert out.count("part at epoch 3, most in σ") == 2
    compare_command.main([str(folder), str(folder)])
    assert capsys.readouterr().out.count("equal within rounding at all 5 common epochs") == 2


MISTAKES = {
    "no file": (show_command, ["absent.h5"], "absent.h5: no such file"),
    "pair": (show_command, ["{run}", "--differences", "SZ", "XX"], "has no pair 'SZ' and 'XX' of groups that share no"),
    "layer": (show_command, ["{run}", "--layers", "x*"], "has no layer 'x*'; it has 0, 2"),
    "second": (compare_command, ["{run}", "absent.h5"], "absent.h5: no such file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line(runs, mistake):
    command, arguments, expected = MISTAKES[mistake]
    with pytest.raises(SystemExit) as ended:
        command.main([argument.format(run=runs[0]) for argument in arguments])
    assert expected in ended.value.code
    assert "\n" not in ended.value.code


def test_a_curve_rises_with_its_values_and_has_gaps():
    assert sparkline(10.0 ** np.arange(8)) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.array([1.0, 0.0, np.nan, 10.0])) == "▁  █"
    assert sparkline(np.full(3, 2.0)) == "▁▁▁"
    assert sparkline(np.zeros(2)) == "  "
    assert sparkline(np.array([])) == ""
    assert len(sparkline(np.arange(1, 10_000.0))) == 24


def test_numbers_are_short_and_whole_where_they_are():
    table = pd.DataFrame(
        {"a": [1234.0, 0.123456], "b": [np.nan, 2.0]}, index=pd.Index(["x", "long name"], name="layer")
    )
    table["n"] = pd.array([None, 12345], dtype="Int64")
    assert as_text(table).splitlines() == [
        "layer      a      b  n",
        "x          1234   –  –",
        "long name  0.123  2  12345",
    ]


def test_power_says_how_many_subjects_a_pilot_asks_for(runs, tmp_path, capsys):
    record(tmp_path / "spectra.h5", permutation_design=design([0, 3]))
    power_command.main([str(tmp_path), "--effect", "0.5"])
    out = capsys.readouterr().out
    assert "needed" in out
    assert " SZ " in out
    with pytest.raises(SystemExit, match="holds no permutations"):
        power_command.main([str(runs[0])])
    with pytest.raises(SystemExit, match="must be a log2 ratio"):
        power_command.main([str(tmp_path), "--effect", "0"])
