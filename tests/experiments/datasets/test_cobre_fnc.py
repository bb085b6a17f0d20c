"""Connectivity as input: numbers against slow twins, blocks, windows, selection; and covariates taken out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autospec.cohorts.prepared_file import write_prepared
from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.datasets.connectivity import band_powers, connectivity, pairs_of, pictures, with_connectivity
from autospec.experiments.datasets.forward_selection import select_forward

Make = Callable[..., Any]


def courses(n: int = 6, n_times: int = 60, components: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n_times, components)) + rng.normal(size=(n, n_times, 1))


def test_connectivity_is_fishers_z_of_every_pair() -> None:
    values = courses()
    found = connectivity(values)
    for subject in range(6):
        matrix = np.corrcoef(values[subject].T)
        expected = [np.arctanh(matrix[a, b]) for a in range(5) for b in range(a + 1, 5)]
        assert np.allclose(found[subject, 0], expected, atol=1e-10)
    windows = connectivity(values, 20)
    assert windows.shape == (6, 3, 10)
    assert np.allclose(windows[:, 1], connectivity(values[:, 20:40])[:, 0])
    with pytest.raises(AutoSpecError, match="dataset.window=61: must be from 3 to 60 volumes"):
        connectivity(values, 61)


def test_a_picture_is_the_symmetric_matrix() -> None:
    vectors = connectivity(courses(), 30)
    found = pictures(vectors, 5)
    assert np.array_equal(found, found.swapaxes(2, 3))
    assert (found[:, :, range(5), range(5)] == 0).all()
    first, second = pairs_of(5)
    assert np.array_equal(found[..., first, second], vectors)


def test_powers_are_shares_by_band() -> None:
    time = np.arange(150) * 2.0
    wave = np.sin(2 * np.pi * 0.04 * time)[None, :, None]
    powers = band_powers(wave, 2.0)
    assert powers.shape == (1, 5)
    assert powers.argmax() == 1
    assert np.exp(powers[0, 1]) == pytest.approx(1, abs=0.01)
    assert band_powers(wave, 5.0).shape == (1, 4)


def test_mixed_time_courses_have_the_connectivity_that_is_asked_for() -> None:
    values = courses()
    wanted = connectivity(courses(seed=1))[:, 0]
    found = with_connectivity(values, wanted)
    assert np.allclose(connectivity(found)[:, 0], wanted, atol=1e-8)
    assert np.allclose(found.mean(axis=1), values.mean(axis=1))
    assert np.allclose(found.std(axis=1), values.std(axis=1))
    assert np.allclose(with_connectivity(values, connectivity(values)[:, 0]), values)


def test_residualized_time_courses_say_nothing_of_age_by_their_connectivity(config: Make) -> None:
    """The simulation's age acts on connectivity; afterwards no pair is related to it, and the diagnosis still is."""
    sizes = "{HC: {men: 40, women: 40}, SZ: {men: 40, women: 40}}"
    overrides = (f"dataset.people={sizes}", "dataset.age.sd=12", "dataset.age_effects={DM: -0.05}")

    def relation(data: Any) -> float:
        age = np.array([float(text) for text in data.columns["age"]])
        z = connectivity(data.inputs)[:, 0]
        return float(np.abs(np.corrcoef(np.column_stack([age, z]).T)[0, 1:]).max())

    before = datasets.load(config("cobre_timeseries", *overrides))
    after = datasets.load(config("cobre_timeseries", *overrides, "dataset.residualize=[age]"))
    assert relation(before) > 0.3
    assert relation(after) < 0.02
    assert after.inputs.shape == before.inputs.shape
    assert after.facts["adjusted_for"] == ["age"]


def test_the_default_is_simulated_and_learnable(config: Make) -> None:
    from sklearn.linear_model import LogisticRegression

    cells = "{men: 100, women: 100}"
    data = datasets.load(config("cobre_fnc", f"dataset.people={{HC: {cells}, SZ: {cells}}}", "dataset.holdout=0.5"))
    assert data.simulated
    assert data.inputs.shape == (400, 53 * 52 // 2)
    model = LogisticRegression(C=1e-3).fit(data.inputs[data.training], data.target[data.training])
    assert model.score(data.inputs[~data.training], data.target[~data.training]) > 0.5 + 3 * 0.5 / np.sqrt(200)


def test_features_are_those_of_the_time_courses(config: Make) -> None:
    one = datasets.load(config("cobre_timeseries", "dataset.scaling=none"))
    fnc = datasets.load(config("cobre_fnc", "dataset.scaling=none"))
    assert fnc.subjects == one.subjects
    assert np.allclose(fnc.inputs, connectivity(one.inputs)[:, 0], atol=1e-5)
    picture = datasets.load(config("cobre_fnc", "dataset.scaling=none", "dataset.form=picture", "dataset.window=50"))
    assert np.allclose(picture.inputs, pictures(connectivity(one.inputs, 50), 53), atol=1e-5)


def test_every_block_counts_alike(config: Make) -> None:
    data = datasets.load(config("cobre_multiscale"))
    assert data.inputs.shape == (124, 5 * 53 + 1378)
    assert data.inputs[:, : 5 * 53].var(axis=0).sum() == pytest.approx(1, rel=1e-3)
    assert data.inputs[:, 5 * 53 :].var(axis=0).sum() == pytest.approx(1, rel=1e-3)


def test_selection_is_forward_and_sees_training_subjects_alone(config: Make) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 200)
    values = rng.normal(size=(200, 30))
    values[:, 7] += target == 1
    values[:, 11] += 2.0 * (target == 2)
    values[:, 12] = values[:, 11] + 0.01 * rng.normal(size=200)
    assert set(select_forward(values, target, 2)) in ({7, 11}, {7, 12})
    assert select_forward(values, target, 3) == _slowly(values, target, 3)
    settings = ("dataset.select=4", "dataset.holdout=0.3")
    data = datasets.load(config("cobre_fnc", *settings))
    whole = datasets.load(config("cobre_fnc", "dataset.holdout=0.3"))
    training = whole.training
    chosen = select_forward(whole.inputs[training], whole.target[training], 4)
    assert np.array_equal(data.inputs, whole.inputs[:, chosen])
    assert any(line.startswith(f"selected on {training.sum()} training subjects: fnc ") for line in data.account)


def _slowly(values: np.ndarray, target: np.ndarray, count: int) -> list[int]:
    """Each step tries every feature in a regression with those before it."""
    wanted = (target[:, None] == np.unique(target)).astype(float)
    chosen: list[int] = []
    for _ in range(count):
        errors = {}
        for feature in set(range(values.shape[1])) - set(chosen):
            design = np.column_stack([np.ones(len(values)), values[:, [*chosen, feature]]])
            fit = design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
            errors[feature] = ((wanted - fit) ** 2).sum()
        chosen.append(min(errors, key=errors.__getitem__))
    return chosen


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A prepared cohort of three medication classes, with maps and repetition time."""
    rng = np.random.default_rng(0)
    people = pd.DataFrame({
        "id": [f"s{i}" for i in range(12)], "medication": ["none", "typical", "atypical"] * 4, "sex": ["M", "F"] * 6,
        "repetition_time_s": [2.0] * 12,
    })  # fmt: skip
    data = {"timecourses": courses(12, 150, 5).astype(np.float32), "maps": rng.normal(size=(12, 5, 40)),
            "template": rng.normal(size=(5, 40))}  # fmt: skip
    write_prepared(tmp_path / "cohort.h5", people, data, "time-courses of a study")
    return tmp_path / "cohort.h5"


def test_three_classes_and_three_blocks_of_a_prepared_cohort(config: Make, cohort: Path) -> None:
    overrides = ("dataset.target=medication", "dataset.group_by=[medication]", f"dataset.path={cohort}")
    data = datasets.load(config("cobre_multiscale", *overrides, "dataset.blocks=[maps,spectra,fnc]"))
    assert data.classes == ("atypical", "none", "typical")
    assert data.groups == data.classes
    assert data.inputs.shape == (12, 5 + 25 + 10)
    assert not data.simulated
    assert data.facts["study"] == "cohort"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.blocks=[fnc,fnc]", "must be different ones of fnc, spectra, maps"),
        ("dataset.blocks=[maps]", "maps need a prepared cohort"),
        ("dataset.form=image", "dataset.form=image: unknown; allowed are vector, picture"),
        ("dataset.window=2", "dataset.window=2: must be 3 or more volumes"),
        ("dataset.window=500", "dataset.window=500: must be from 3 to 150 volumes"),
        ("dataset.select=0", "dataset.select=0: must be 1 or more"),
        ("dataset.select=5000", "dataset.select=5000: there are 1378 features"),
        ("dataset.time_points=2", "dataset.time_points=2: must be 3 or more"),
    ],
)
def test_mistakes_end_in_one_line(config: Make, override: str, message: str) -> None:
    with pytest.raises(AutoSpecError, match=message):
        datasets.load(config("cobre_fnc", override))
