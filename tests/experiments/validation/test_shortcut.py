"""The benchmark of a planted shortcut: its data, its count, its command."""

import sys

import numpy as np
import pandas as pd
import pytest

from autospec.experiments import CONF
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.validation import shortcut_command
from autospec.experiments.validation.recorded import load_quietly
from autospec.experiments.validation.shortcut import (
    COLUMNS,
    NETWORK,
    Shortcut,
    shortcut_rates,
    shortcut_study,
)


@pytest.fixture(scope="module")
def base():
    return check_config(compose_config(CONF, NETWORK))


def test_sex_goes_with_the_diagnosis_and_stands_in_every_input(base):
    """Of 4,000 subjects, so that d can be read off; Cohen's d within the controls, who have no diagnosis effect."""
    data = load_quietly(Shortcut(0.8, 4000).config(base, 1))
    sizes = dict(zip(data.groups, np.bincount(data.group).tolist(), strict=True))
    assert sizes == {"HC/men": 500, "HC/women": 1500, "SZ/men": 1500, "SZ/women": 500}
    men, women = (data.inputs[data.group == data.groups.index(f"HC/{sex}")] for sex in ("men", "women"))
    d = (men.mean(0) - women.mean(0)) / np.sqrt((men.var(0) + women.var(0)) / 2)
    assert 0.4 < d.min() <= d.max() < 1.0
    none = load_quietly(Shortcut(0.0, 4000).config(base, 1))
    men, women = (none.inputs[none.group == none.groups.index(f"HC/{sex}")] for sex in ("men", "women"))
    assert np.abs(men.mean(0) - women.mean(0)).max() < 0.2


@pytest.mark.slow
def test_a_large_shortcut_is_found_and_an_absent_one_is_not_told_to_be(base, caplog):
    caplog.set_level("INFO")
    studies = [shortcut_study(Shortcut(2.0), base, seed) for seed in range(3)]
    assert max(study["permutation"] for study in studies) <= 0.05
    assert "omnibus" not in studies[0]  # diagnosis is among its groups, and learned
    absent = [shortcut_study(Shortcut(0.0), base, seed)["permutation"] for seed in range(3)]
    assert all(0 < p <= 1 for p in absent)
    assert max(absent) > 0.05
    assert not caplog.messages  # hundreds of studies say nothing of themselves


def test_rates_count_studies(base):
    studies = pd.DataFrame({"d": 0.8, "subjects": 80, "test": "permutation", "p": [0.05, 0.01, 0.055, 0.9]})
    table = shortcut_rates(studies)
    assert list(table.columns) == list(COLUMNS)
    row = table.iloc[0]
    assert (row.rate, row.runs) == (0.5, 4)
    # the exact interval of scipy.stats.binomtest, 2 of 4 at 0.95
    assert (row.low, row.high) == pytest.approx((0.0675860, 0.9324140), abs=1e-6)


def test_the_command_writes_table_and_picture(tmp_path, monkeypatch, capsys):
    def study(kind, base, seed):
        return {"permutation": 0.01 if kind.d else 0.5}

    monkeypatch.setattr(shortcut_command, "shortcut_study", study)
    monkeypatch.setattr(sys, "argv", ["x", "--runs", "3", "--jobs", "1", "--output-dir", str(tmp_path)])
    shortcut_command.main()
    table = pd.read_csv(tmp_path / "shortcut" / "shortcut.csv")
    assert table.rate.tolist() == [0, 1, 1]
    assert (tmp_path / "shortcut" / "shortcut.png").read_bytes().startswith(b"\x89PNG")
    assert "permutation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "0"], "--runs and --jobs must be 1 or more"),
        (["--subjects", "20"], "--subjects 20: must be a multiple of 8, 24 or more"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    with pytest.raises(SystemExit, match=message):
        shortcut_command.main()


def test_the_command_goes_on_where_it_was(tmp_path, monkeypatch):
    counted = []

    def study(kind, base, seed):
        if kind.d == 0.8:
            raise KeyboardInterrupt
        counted.append(kind.d)
        return {"permutation": 0.5}

    path = tmp_path / "shortcut.csv"
    monkeypatch.setattr(shortcut_command, "shortcut_study", study)
    with pytest.raises(KeyboardInterrupt):
        shortcut_command._table([Shortcut(0.0), Shortcut(0.8)], 2, 1, path)
    assert pd.read_csv(path).d.tolist() == [0.0]
    monkeypatch.setattr(shortcut_command, "shortcut_study", lambda kind, base, seed: {"permutation": 0.01})
    table = shortcut_command._table([Shortcut(0.0), Shortcut(0.8)], 2, 1, path)
    assert table.rate.tolist() == [0.0, 1.0]
    assert counted == [0.0, 0.0]
