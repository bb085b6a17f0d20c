"""The simulated volumes: effects, correlations and scale are what the configuration says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.datasets.freesurfer.volumes import EMPTY, FEATURES, STRUCTURES, bare_name, volume_of
from autospec.experiments.datasets.simulation.freesurfer import simulate_table
from autospec.experiments.datasets.simulation.subjects import generators, simulate_subjects

Make = Callable[..., Any]
LARGE = [f"dataset.people.{diagnosis}.{sex}=1500" for diagnosis in ("HC", "SZ") for sex in ("men", "women")]


def simulated(config: Make, *overrides: str) -> tuple[Any, pd.DataFrame, pd.DataFrame]:
    settings = config("freesurfer", *overrides)
    who, what = generators(settings, 2)
    subjects = simulate_subjects(settings, who)
    return subjects, simulate_table(settings, subjects, what), settings


def residual_effects(subjects: Any, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Regression coefficients of every structure's log volume, in residual SD, on each cause."""
    head = np.log(table["EstimatedTotalIntraCranialVol"])
    causes = {"diagnosis": subjects.diagnosis, "sex": subjects.sex, "age": subjects.age, "head": head / 0.095}
    design = np.column_stack([np.ones(len(table)), subjects.motion, *causes.values()])
    logs = np.log(table[list(FEATURES["aseg"])].to_numpy())
    coefficients, *_ = np.linalg.lstsq(design, logs, rcond=None)
    spread = (logs - design @ coefficients).std(axis=0)
    return dict(zip(causes, coefficients[2:] / spread, strict=True))


@pytest.fixture(scope="module")
def large(config: Make) -> tuple[Any, pd.DataFrame, Any]:
    return simulated(config, *LARGE)


def test_table_has_the_66_columns_and_the_list_39_of_them(large: Any) -> None:
    _, table, _ = large
    assert list(table.columns) == list(FEATURES["aseg_table"])
    assert (len(table.columns), len(STRUCTURES), len(FEATURES["aseg"])) == (66, 45, 39)
    assert (table[list(EMPTY)] == 0).all(axis=None)
    assert (table[list(FEATURES["aseg"])] > 0).all(axis=None)


def test_published_effects_are_recovered(large: Any) -> None:
    """Six thousand subjects: the standard error of d is 0.026; five of them are allowed, over 39 structures."""
    subjects, table, settings = large
    found = residual_effects(subjects, table)
    for name, d, age, head in zip(FEATURES["aseg"], found["diagnosis"], found["age"], found["head"], strict=True):
        own, tissue = bare_name(name), volume_of(name).tissue
        assert d == pytest.approx(settings.diagnosis_effects.get(own, 0.0), abs=0.13), name
        assert age == pytest.approx(settings.age_effects.get(own, settings.age_effects.get(tissue, 0)), abs=0.08), name
        assert head == pytest.approx(settings.head_size_effects[tissue], abs=0.08), name
    assert settings.diagnosis_effects["Hippocampus"] == -0.46
    assert settings.diagnosis_effects["Lateral-Ventricle"] == 0.37


def test_heads_differ_by_sex_and_diagnosis(large: Any) -> None:
    subjects, table, _ = large
    head = np.log(table["EstimatedTotalIntraCranialVol"].to_numpy()) / 0.095
    design = np.column_stack([np.ones(len(head)), subjects.sex, subjects.diagnosis])
    _, sex, diagnosis = np.linalg.lstsq(design, head, rcond=None)[0]
    assert sex == pytest.approx(1.4, abs=0.1)
    assert diagnosis == pytest.approx(-0.12, abs=0.1)


def test_without_effects_no_structure_differs(config: Make) -> None:
    subjects, table, _ = simulated(config, *LARGE, "dataset.effect=0")
    patient = subjects.table["diagnosis"].to_numpy() == "SZ"
    logs = np.log(table[list(FEATURES["aseg"])].to_numpy())
    d = (logs[patient].mean(0) - logs[~patient].mean(0)) / logs.std(0)
    assert np.abs(d).max() < 0.13


def test_effect_is_a_factor(config: Make) -> None:
    subjects, table, settings = simulated(config, *LARGE, "dataset.effect=3")
    hippocampus = FEATURES["aseg"].index("Left-Hippocampus")
    settled = residual_effects(subjects, table)["diagnosis"][hippocampus]
    assert 3 * settled == pytest.approx(3 * settings.diagnosis_effects["Hippocampus"], abs=0.4)


def test_residuals_correlate_as_configured(config: Make) -> None:
    nothing = ["dataset.effect=0"]
    _, table, settings = simulated(config, *LARGE, *nothing)
    subjects, _, _ = simulated(config, *LARGE, *nothing)
    logs = np.log(table[list(FEATURES["aseg"])])
    head = np.log(table["EstimatedTotalIntraCranialVol"])
    design = np.column_stack([np.ones(len(logs)), subjects.sex, subjects.age, subjects.motion, head])
    rest = logs - design @ np.linalg.lstsq(design, logs.to_numpy(), rcond=None)[0]
    found = rest.corr()
    pairs = found.loc["Left-Hippocampus"]
    assert pairs["Right-Hippocampus"] == pytest.approx(settings.correlation.hemispheres, abs=0.04)
    assert pairs["Left-Putamen"] == pytest.approx(settings.correlation.tissue, abs=0.05)
    assert pairs["Left-Lateral-Ventricle"] == pytest.approx(settings.correlation.overall, abs=0.06)


def test_volumes_have_the_scale_of_an_adult_brain(large: Any) -> None:
    _, table, _ = large
    middle = table.median()
    assert 3500 < middle["Left-Hippocampus"] < 4700
    assert 1.3e6 < middle["EstimatedTotalIntraCranialVol"] < 1.8e6
    assert 0.65 < middle["BrainSegVol-to-eTIV"] < 0.85
    assert (table["BrainSegVol"] > table["SupraTentorialVol"]).all()
    assert (table["TotalGrayVol"] > table["CortexVol"]).all()
    skew = np.asarray(table["Left-Lateral-Ventricle"])
    assert skew.mean() > np.median(skew)


def test_diagnosis_can_be_learned_at_published_effects(config: Make) -> None:
    from sklearn.linear_model import LogisticRegression

    subjects = [f"dataset.people.{diagnosis}={{men: 300, women: 300}}" for diagnosis in ("HC", "SZ")]
    data = datasets.load(config("freesurfer", *subjects, "dataset.holdout=0.5"))
    model = LogisticRegression(C=0.01).fit(data.inputs[data.training], data.target[data.training])
    accuracy = model.score(data.inputs[~data.training], data.target[~data.training])
    assert accuracy > 0.5 + 3 * 0.5 / np.sqrt(600)


def test_correlations_that_do_not_nest_are_an_error(config: Make) -> None:
    with pytest.raises(AutoSpecError, match="must rise between 0 and 1"):
        datasets.load(config("freesurfer", "dataset.correlation.tissue=0.9"))
