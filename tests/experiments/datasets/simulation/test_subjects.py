"""What simulated cohorts have in common: their subjects, the null, the seed, and how they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.datasets.simulation.subjects import generators, simulate_subjects

Make = Callable[..., Any]
COHORTS = ("freesurfer", "cobre_timeseries", "cobre_maps")
SMALL = {"freesurfer": (), "cobre_timeseries": ("dataset.time_points=20",), "cobre_maps": ("dataset.resolution_mm=12",)}


def of_people(controls: tuple[int, int], patients: tuple[int, int]) -> list[str]:
    """Overrides for (men, women) of each diagnosis."""
    return [
        f"dataset.people.{name}.{sex}={count}"
        for name, counts in (("HC", controls), ("SZ", patients))
        for sex, count in zip(("men", "women"), counts, strict=True)
    ]


@pytest.mark.parametrize("name", COHORTS)
def test_default_cohort_has_the_people_of_cobre_and_says_that_it_is_simulated(config: Make, name: str) -> None:
    data = datasets.load(config(name, *SMALL[name], "dataset.group_by=[diagnosis,sex]"))
    sizes = dict(zip(data.groups, np.bincount(data.group), strict=True))
    assert sizes == {"HC/men": 43, "HC/women": 20, "SZ/men": 51, "SZ/women": 10}
    assert data.simulated
    assert data.source.startswith("simulated")
    assert data.account[0] == "simulated: 124 subjects, effect 1"
    assert data.inputs.dtype == np.float32
    assert np.isfinite(data.inputs).all()


@pytest.mark.parametrize("name", COHORTS)
def test_without_an_effect_the_data_do_not_depend_on_the_diagnosis(config: Make, name: str) -> None:
    """The same men, once few and once most of them patients, have the same data to the last bit."""
    few = datasets.load(config(name, *SMALL[name], "dataset.effect=0", *of_people((30, 0), (10, 0))))
    most = datasets.load(config(name, *SMALL[name], "dataset.effect=0", *of_people((10, 0), (30, 0))))
    assert np.array_equal(few.inputs, most.inputs)
    assert few.target.sum() == 10
    assert most.target.sum() == 30
    real = datasets.load(config(name, *SMALL[name], *of_people((10, 0), (30, 0))))
    assert not np.array_equal(real.inputs, most.inputs)


@pytest.mark.parametrize("name", COHORTS)
def test_the_seed_decides_the_data(config: Make, name: str) -> None:
    first, again, other = (datasets.load(config(name, *SMALL[name], f"dataset.seed={seed}")) for seed in (1, 1, 2))
    assert np.array_equal(first.inputs, again.inputs)
    assert np.array_equal(first.group, again.group)
    assert not np.array_equal(first.inputs, other.inputs)


def test_the_order_of_people_tells_nothing_of_their_group(config: Make) -> None:
    data = datasets.load(config("freesurfer", *of_people((500, 0), (500, 0))))
    assert abs(np.corrcoef(np.arange(1000), data.target)[0, 1]) < 0.1


def test_age_and_motion_differ_between_groups_only_where_asked(config: Make) -> None:
    for shift, key in ((0.0, "age"), (0.8, "age"), (0.8, "motion")):
        settings = config("freesurfer", *of_people((1000, 1000), (2000, 2000)), f"dataset.{key}.shift={shift}")
        table = simulate_subjects(settings, generators(settings, 1)[0]).table
        patient = table["diagnosis"] == "SZ"
        difference = (table[key][patient].mean() - table[key][~patient].mean()) / table[key][~patient].std()
        assert difference == pytest.approx(shift, abs=0.12)
        assert table["age"].between(18, 65).all()
        assert table["motion"].between(0.05, 1).all()


def test_fingerprint_of_a_simulation_is_its_version(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from autospec.experiments.datasets.freesurfer import dataset as freesurfer

    before = datasets.fingerprint(config("freesurfer"))
    assert before == datasets.fingerprint(config("freesurfer", "dataset.seed=1"))
    assert len({datasets.fingerprint(config(name)) for name in (*COHORTS, "sinusoid")}) == 4
    monkeypatch.setattr(freesurfer, "SIMULATION", "freesurfer 0")
    assert before != datasets.fingerprint(config("freesurfer"))


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("sinusoid", "dataset.noise_sd=nan"),
        ("freesurfer", "dataset.effect=inf"),
        ("freesurfer", "dataset.correlation.tissue=nan"),
        ("freesurfer", "dataset.age.mean=nan"),
        ("cobre_timeseries", "dataset.motion_effect=-inf"),
        ("cobre_timeseries", "dataset.couplings.SC=nan"),
        ("cobre_maps", "dataset.noise_sd=nan"),
    ],
)
def test_a_number_that_is_not_finite_is_named(config: Make, name: str, override: str) -> None:
    with pytest.raises(AutoSpecError, match=f"{override}: must be a finite number"):
        datasets.check(config(name, override))


@pytest.mark.parametrize("name", COHORTS)
def test_a_simulated_cohort_has_no_table_whose_columns_have_names(config: Make, name: str) -> None:
    with pytest.raises(AutoSpecError, match=r"dataset.columns.sex=Gender: does nothing here, the cohort is simulated"):
        datasets.check(config(name, "dataset.columns.sex=Gender"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.people.SZ.men=-1", "dataset.people.SZ.men=-1: must be 0 or more"),
        ("dataset.people={HC: {men: 0, women: 0}, SZ: {men: 0, women: 0}}", "dataset.people: a cohort needs a subject"),
        ("dataset.age.sd=0", "dataset.age: sd must be above 0"),
        ("dataset.motion.low=2", "dataset.motion: sd must be above 0 and low below high"),
    ],
)
def test_people_that_cannot_be_are_named(config: Make, override: str, message: str) -> None:
    with pytest.raises(AutoSpecError, match=message):
        datasets.check(config("freesurfer", override))


@pytest.mark.parametrize(
    ("name", "key", "allowed"),
    [("freesurfer", "Hipocampus", "Hippocampus"), ("cobre_timeseries", "SC-XX", "SC-SM"), ("cobre_maps", "XX", "VI")],
)
def test_an_effect_on_nothing_is_an_error(config: Make, name: str, key: str, allowed: str) -> None:
    for kind in ("diagnosis_effects", "sex_effects", "age_effects"):
        with pytest.raises(AutoSpecError, match=rf"dataset.{kind}.{key}: unknown; allowed are .*{allowed}"):
            datasets.check(config(name, f"+dataset.{kind}.{key}=0.5"))
