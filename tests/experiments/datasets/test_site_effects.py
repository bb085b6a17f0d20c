"""How far sites lie apart: numbers that can be reckoned by hand, and the picture that a run keeps."""

import json

import numpy as np
import pytest

from autospec.experiments.datasets.site_effects import largest_shift, site_effects


def test_shift_and_spread_are_those_of_each_site():
    """Two sites of two, at 0 ± 1 and 4 ± 2: mean 2, variance (1 + 4) / 2 + 4."""
    values = np.array([[-1.0], [1.0], [2.0], [6.0]])
    effects = site_effects(values, ["a", "a", "b", "b"])
    sd = np.sqrt(6.5)
    assert effects["a"]["shift"] == pytest.approx([-2 / sd] * 5)
    assert effects["b"]["shift"] == pytest.approx([2 / sd] * 5)
    assert effects["a"]["spread"] == pytest.approx([np.log2(1 / sd)] * 5)
    assert effects["b"]["spread"] == pytest.approx([np.log2(2 / sd)] * 5)
    assert largest_shift(effects) == pytest.approx(2 / sd)


def test_features_that_do_not_vary_are_left_out():
    values = np.array([[0.0, 7.0], [1.0, 7.0], [0.0, 7.0], [1.0, 7.0]])
    effects = site_effects(values, ["a", "a", "b", "b"])
    assert effects["a"]["shift"] == pytest.approx([0.0] * 5)
    flat = site_effects(values[:, 1:], ["a", "a", "b", "b"])
    assert flat["a"] == {"shift": [0.0] * 5, "spread": [0.0] * 5}


def test_a_run_keeps_the_picture_and_the_numbers(tmp_path, run):
    rng = np.random.default_rng(0)
    rows = ["participant_id\tdiagnosis\tsex\tsite\tage"]
    table = ["Measure:volume\tLeft-Hippocampus\tRight-Hippocampus\tLeft-Amygdala"]
    for number in range(40):
        site = "north" if number % 2 else "south"
        rows.append(
            f"sub-{number:02d}\t{'HC' if number < 20 else 'SZ'}\t{'MF'[number // 2 % 2]}\t{site}\t{20 + number}"
        )
        volumes = rng.normal([4000, 4000, 1600], [300, 300, 100]) + (800 if site == "north" else 0)
        table.append("\t".join([f"sub-{number:02d}", *(f"{volume:.0f}" for volume in volumes)]))
    (tmp_path / "participants.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "aseg.tsv").write_text("\n".join(table) + "\n")
    said = run(
        "dataset=freesurfer", "epochs=1", "width=2", "dataset.harmonize=[site]",
        f"dataset.table={tmp_path / 'aseg.tsv'}",
        f"dataset.participants={tmp_path / 'participants.tsv'}",
        "dataset.features=[Left-Hippocampus,Right-Hippocampus,Left-Amygdala]",
    )  # fmt: skip
    assert said == ""
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    told = json.loads((folder / "cohort.json").read_text())
    assert any(line.startswith("sites lay up to") for line in told["account"])
    effects = told["facts"]["site_effects"]
    assert abs(effects["before"]["north"]["shift"][2]) > 0.5
    assert abs(effects["after"]["north"]["shift"][2]) < 0.1
    assert (folder / "sites.png").stat().st_size > 10_000
