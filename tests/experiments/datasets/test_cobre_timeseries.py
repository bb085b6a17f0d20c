"""Component time-courses: spectra, correlations by domain, diagnosis effects, and prepared cohorts."""

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
from autospec.experiments.datasets.simulation.components import COMPONENTS, DOMAIN_OF, DOMAINS, couplings
from autospec.experiments.datasets.simulation.subjects import generators, simulate_subjects
from autospec.experiments.datasets.simulation.timecourses import correlations, power_law_noise, simulate_timecourses

Make = Callable[..., Any]
NAMES = list(DOMAINS)
MEN = ["dataset.people={HC: {men: 300, women: 0}, SZ: {men: 300, women: 0}}"]
NO_COVARIATES = ["dataset.motion_effect=0", "dataset.age_effects={SM: 0, DM: 0, CC: 0}"]


def domain_couplings(timecourses: np.ndarray) -> np.ndarray:
    """The mean correlation of each pair of domains in each subject, (n, 7, 7)."""
    centred = timecourses - timecourses.mean(1, keepdims=True)
    unit = centred / np.sqrt((centred**2).sum(1, keepdims=True))
    full = unit.transpose(0, 2, 1) @ unit
    member = np.eye(len(NAMES))[DOMAIN_OF]
    pairs = member.T @ (1 - np.eye(COMPONENTS)) @ member
    return (member.T @ (full * (1 - np.eye(COMPONENTS))) @ member) / pairs


@pytest.fixture(scope="module")
def large(config: Make) -> tuple[Any, Any, np.ndarray]:
    settings = config("cobre_timeseries", *MEN, *NO_COVARIATES, "dataset.spectral_exponent=0")
    who, what = generators(settings, 2)
    subjects = simulate_subjects(settings, who)
    return settings, subjects, domain_couplings(simulate_timecourses(settings, subjects, what))


def test_shape_and_scale(config: Make) -> None:
    data = datasets.load(config("cobre_timeseries"))
    assert data.inputs.shape == (124, 150, 53)
    assert np.allclose(data.inputs.mean(1), 0, atol=1e-4)
    assert np.allclose(data.inputs.std(1), 1, atol=1e-4)
    assert datasets.load(config("cobre_timeseries", "dataset.time_points=40")).inputs.shape == (124, 40, 53)


def test_domains_are_those_of_neuromark() -> None:
    first = {name: int((code == DOMAIN_OF).argmax()) + 1 for code, name in enumerate(NAMES)}
    assert first == {"SC": 1, "AU": 6, "SM": 8, "VI": 17, "CC": 26, "DM": 43, "CB": 50}
    assert len(DOMAIN_OF) == COMPONENTS == 53


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_power_falls_with_the_configured_exponent(exponent: float) -> None:
    noise = power_law_noise((100, 150, 10), exponent, np.random.default_rng(0))
    power = (np.abs(np.fft.rfft(noise, axis=1)) ** 2).mean(axis=(0, 2))[2:70]
    slope = np.polyfit(np.log(np.arange(2, 70)), np.log(power), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.1)
    assert noise.var() == pytest.approx(1, rel=0.05)


def test_mixed_time_courses_keep_the_slope(config: Make) -> None:
    inputs = datasets.load(config("cobre_timeseries", "dataset.motion_effect=0")).inputs
    power = (np.abs(np.fft.rfft(inputs, axis=1)) ** 2).mean(axis=(0, 2))[2:70]
    assert np.polyfit(np.log(np.arange(2, 70)), np.log(power), 1)[0] == pytest.approx(-1, abs=0.15)


def test_couplings_by_domain_are_recovered(large: Any) -> None:
    """300 controls, white spectra: the standard error of a mean coupling is below 0.006."""
    settings, subjects, found = large
    men = couplings(settings.couplings, "couplings") + 0.5 * couplings(settings.sex_effects, "sex_effects")
    controls = found[subjects.diagnosis == 0].mean(axis=0)
    assert np.abs(controls - men).max() < 0.02


def test_diagnosis_effects_are_recovered(large: Any) -> None:
    settings, subjects, found = large
    difference = found[subjects.diagnosis == 1].mean(axis=0) - found[subjects.diagnosis == 0].mean(axis=0)
    assert np.abs(difference - couplings(settings.diagnosis_effects, "diagnosis_effects")).max() < 0.02
    change = dict(zip([(a, b) for a in NAMES for b in NAMES], difference.ravel(), strict=True))
    assert change["SC", "SM"] > 0.03
    assert change["SC", "CB"] < -0.03
    assert max(change["SM", "SM"], change["VI", "VI"], change["AU", "SM"], change["SM", "VI"]) < -0.01


def test_motion_raises_every_coupling(config: Make) -> None:
    still, moving = (
        domain_couplings(datasets.load(config("cobre_timeseries", f"dataset.motion_effect={size}")).inputs).mean(0)
        for size in (0, 3)
    )  # fmt: skip
    assert (moving - still)[still < 0.3].min() > 0.05


def test_every_person_has_a_correlation_matrix(config: Make) -> None:
    settings = config("cobre_timeseries")
    matrices = correlations(settings, simulate_subjects(settings, generators(settings, 1)[0]))
    assert np.array_equal(matrices, matrices.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(matrices).min() > 0


def test_an_impossible_effect_is_an_error_that_says_so(config: Make) -> None:
    with pytest.raises(AutoSpecError, match="correlation matrix with a negative eigenvalue"):
        datasets.load(config("cobre_timeseries", "dataset.effect=20"))


def test_diagnosis_can_be_learned_at_the_default_effects(config: Make) -> None:
    from sklearn.linear_model import LogisticRegression

    data = datasets.load(config("cobre_timeseries", *MEN, "dataset.holdout=0.5"))
    features = domain_couplings(data.inputs).reshape(len(data.target), -1)
    model = LogisticRegression(C=10).fit(features[data.training], data.target[data.training])
    assert model.score(features[~data.training], data.target[~data.training]) > 0.5 + 3 * 0.5 / np.sqrt(300)


def cohort_file(folder: Path, timecourses: np.ndarray, **columns: list[Any]) -> Path:
    ids = [f"s{number}" for number in range(len(timecourses))]
    subjects = pd.DataFrame({"id": ids, "diagnosis": ["SZ", "HC"] * 2, "sex": ["M", "M", "F", "F"], **columns})
    write_prepared(folder / "cohort.h5", subjects, {"timecourses": timecourses}, "ten minutes of rest")
    return folder / "cohort.h5"


def test_a_prepared_cohort_is_read_from_file_or_folder(config: Make, tmp_path: Path) -> None:
    timecourses = np.random.default_rng(0).normal(size=(4, 30, 53))
    file = cohort_file(tmp_path, timecourses)
    for path in (file, tmp_path):
        data = datasets.load(config("cobre_timeseries", f"dataset.path={path}", "dataset.scaling=none"))
        assert np.allclose(data.inputs, timecourses, atol=1e-6)
        assert data.groups == ("HC/men", "HC/women", "SZ/men", "SZ/women")
        assert (data.source, data.simulated) == ("ten minutes of rest", False)
    short = datasets.load(config("cobre_timeseries", f"dataset.path={file}", "dataset.time_points=10"))
    assert short.inputs.shape == (4, 10, 53)
    assert "the first 10 of 30 volumes are used: dataset.time_points" in short.account
    whole = datasets.load(config("cobre_timeseries", f"dataset.path={file}", "dataset.time_points=30"))
    assert not any("volumes are used" in line for line in whole.account)


@pytest.mark.parametrize(("lacking", "there"), [("diagnosis", "sex"), ("sex", "diagnosis")])
def test_a_cohort_without_a_label_says_what_can_be_compared(
    config: Make, tmp_path: Path, lacking: str, there: str
) -> None:
    subjects = pd.DataFrame({"id": list("abcd"), there: list("xxyy")})
    timecourses = np.random.default_rng(0).normal(size=(4, 30, 53))
    write_prepared(tmp_path / "cohort.h5", subjects, {"timecourses": timecourses}, "rest")
    path, instead = f"dataset.path={tmp_path}", [f"dataset.target={there}", f"dataset.group_by=[{there}]"]
    with pytest.raises(AutoSpecError, match=f"no column '{lacking}'; it has .*; without it, ") as error:
        datasets.load(config("cobre_timeseries", path))
    assert all(override in str(error.value) for override in instead)
    labels = f"+dataset.labels.{there}={{one: [x], two: [y]}}"
    assert datasets.load(config("cobre_timeseries", path, *instead, labels)).groups == ("one", "two")


def test_people_with_gaps_or_doubled_ids_are_named(config: Make, tmp_path: Path) -> None:
    timecourses = np.random.default_rng(0).normal(size=(4, 30, 53))
    timecourses[1, 3, 7] = np.nan
    file = cohort_file(tmp_path, timecourses, id=["a", "b", "c", "c"])
    data = datasets.load(config("cobre_timeseries", f"dataset.path={file}"))
    assert data.subjects == ("a",)
    assert "left out: b: has missing values (NaN or infinite) in cohort.h5" in data.account
    assert "left out: c: the id occurs 2 times in the phenotype table" in data.account


def test_mistakes_end_in_one_line(config: Make, tmp_path: Path) -> None:
    file = cohort_file(tmp_path, np.random.default_rng(0).normal(size=(4, 30, 53)))
    for overrides, message in (
        (["dataset.time_points=31", f"dataset.path={file}"], "31: .*cohort.h5 holds 30; dataset.time_points=null"),
        ([f"dataset.path={file}", "dataset.columns.sex=Gender"], "give --column sex=Gender when preparing"),
        (["dataset.time_points=1"], "dataset.time_points=1: must be 2 or more, or null for all"),
        ([f"dataset.path={tmp_path / 'none.h5'}"], "there is no prepared cohort"),
        (["dataset.group_by=[site]"], "the cohort has no column 'site'"),
    ):
        with pytest.raises(AutoSpecError, match=message):
            datasets.load(config("cobre_timeseries", *overrides))


def test_a_person_with_a_component_that_never_moves_is_left_out_by_name(config: Make, tmp_path: Path) -> None:
    timecourses = np.random.default_rng(0).normal(size=(4, 30, 53))
    timecourses[2, :, 5] = 1
    data = datasets.load(config("cobre_timeseries", f"dataset.path={cohort_file(tmp_path, timecourses)}"))
    assert data.subjects == ("s0", "s1", "s3")
    assert "left out: s2: component 6 (from 1) is constant in cohort.h5" in data.account
    timecourses[..., 5] = 1
    with pytest.raises(AutoSpecError, match=r"cohort.h5: every subject has a component that is constant over time"):
        datasets.load(config("cobre_timeseries", f"dataset.path={cohort_file(tmp_path, timecourses)}"))
