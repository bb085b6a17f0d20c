"""Scaling, fitted on training subjects only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autospec.errors import AutoSpecError
from autospec.experiments.datasets.scaling import grey_values, scale


def samples(seed: int, *shape: int) -> np.ndarray:
    return 5 + 3 * np.random.default_rng(seed).normal(size=shape)


@given(st.integers(0, 1000), st.integers(3, 9))
def test_features_of_training_people_have_mean_0_and_sd_1(seed: int, subjects: int) -> None:
    training = np.arange(subjects + 2) < subjects
    result = scale(samples(seed, subjects + 2, 4), "feature", training).inputs
    assert result.dtype == np.float32
    assert np.allclose(result[training].mean(0), 0, atol=1e-5)
    assert np.allclose(result[training].std(0), 1, atol=1e-4)


@pytest.mark.parametrize("kind", ["feature", "global"])
def test_held_out_people_do_not_move_the_fit(kind: str) -> None:
    training = np.array([True] * 6 + [False] * 2)
    first, second = samples(0, 8, 1, 3, 3), samples(0, 8, 1, 3, 3)
    second[~training] = 1e6
    one, two = scale(first, kind, training), scale(second, kind, training)
    assert np.array_equal(one.inputs[training], two.inputs[training])
    assert all(np.array_equal(one.fitted[key], two.fitted[key]) for key in ("mean", "sd"))


def test_time_courses_are_scaled_person_by_person() -> None:
    inputs = samples(1, 4, 50, 3)
    result = scale(inputs, "person", np.array([True, False, False, False]))
    assert np.allclose(result.inputs.mean(1), 0, atol=1e-5)
    assert np.allclose(result.inputs.std(1), 1, atol=1e-5)
    alone = scale(inputs[2:3], "person", np.array([True])).inputs
    assert np.allclose(alone, result.inputs[2:3])
    assert result.fitted == {}


def test_maps_share_one_mean_and_sd() -> None:
    inputs = samples(2, 5, 1, 3, 3, 3)
    result = scale(inputs, "global", np.ones(5, dtype=bool))
    assert result.fitted["mean"].shape == ()
    back = result.inputs * result.fitted["sd"] + result.fitted["mean"]
    assert np.allclose(back, inputs, atol=1e-5)


def test_none_leaves_values_as_they_are() -> None:
    inputs = samples(3, 4, 2)
    assert np.array_equal(scale(inputs, "none", np.ones(4, dtype=bool)).inputs, inputs.astype(np.float32))


def test_images_are_grey_values_from_0_to_1() -> None:
    images = np.array([0, 51, 255], dtype=np.uint8)
    assert grey_values(images).dtype == np.float32
    assert np.allclose(grey_values(images), [0, 0.2, 1])


def test_constant_values_and_an_unknown_kind_are_errors() -> None:
    inputs = samples(4, 4, 3)
    inputs[:3, 1] = 7
    with pytest.raises(AutoSpecError, match="the values at index 1 are constant"):
        scale(inputs, "feature", np.array([True, True, True, False]))
    with pytest.raises(AutoSpecError, match=r"dataset.scaling=rank: unknown"):
        scale(inputs, "rank", np.ones(4, dtype=bool))
