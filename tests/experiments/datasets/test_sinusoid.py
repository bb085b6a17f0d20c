"""Sine waves, one frequency per class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autospec.errors import AutoSpecError
from autospec.experiments import datasets

Make = Callable[..., Any]


def test_default_has_four_classes_that_are_its_groups(config: Make) -> None:
    data = datasets.load(config("sinusoid"))
    assert data.inputs.shape == (400, 64, 1)
    assert data.inputs.dtype == np.float32
    assert data.classes == data.groups == ("0", "1", "2", "3")
    assert data.group_sizes() == [400, 100, 100, 100, 100]
    assert data.simulated
    assert data.source.startswith("simulated")
    assert data.account == ("simulated: 400 sinusoids of 4 classes",)


def test_class_k_has_k_plus_one_cycles(config: Make) -> None:
    data = datasets.load(config("sinusoid", "dataset.classes=[0,3,7]", "dataset.channels=2"))
    power = np.abs(np.fft.rfft(data.inputs, axis=1)) ** 2
    cycles = np.array([1, 4, 8])[data.target]
    assert np.array_equal(power.argmax(axis=1), np.stack([cycles, cycles], axis=1))


def test_noise_and_wave_have_the_configured_sizes(config: Make) -> None:
    noisy = datasets.load(config("sinusoid", "dataset.noise_sd=0.5")).inputs
    clean = datasets.load(config("sinusoid", "dataset.noise_sd=0")).inputs
    assert np.abs(clean).max() == pytest.approx(1, abs=0.01)
    assert (noisy - clean).std() == pytest.approx(0.5, rel=0.02)
    assert abs((noisy - clean).mean()) < 0.02


def test_phases_are_random_and_channels_have_their_own(config: Make) -> None:
    inputs = datasets.load(config("sinusoid", "dataset.channels=2", "dataset.classes=[0]")).inputs
    phase = np.angle(np.fft.rfft(inputs, axis=1)[:, 1])
    assert abs(np.exp(1j * phase).mean()) < 0.2
    assert abs(np.exp(1j * (phase[:, 0] - phase[:, 1])).mean()) < 0.2


def test_the_seed_decides_the_data(config: Make) -> None:
    first, again, other = (
        datasets.load(config("sinusoid", f"dataset.seed={seed}")).inputs for seed in (1, 1, 2)
    )  # fmt: skip
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_series_are_held_out_within_classes(config: Make) -> None:
    data = datasets.load(config("sinusoid", "dataset.holdout=0.25"))
    assert np.bincount(data.target[~data.training]).tolist() == [25, 25, 25, 25]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.path=x", "dataset.path=x: the sinusoids are generated"),
        ("dataset.per_class=0", "dataset.per_class=0: must be 1 or more"),
        ("dataset.channels=0", "dataset.channels=0: must be 1 or more"),
        ("dataset.noise_sd=-1", "dataset.noise_sd=-1.0: must be 0 or more"),
        ("dataset.classes=[1,1]", r"dataset.classes=\[1, 1\]: must be distinct"),
        ("dataset.classes=[-1]", r"dataset.classes=\[-1\]: must be distinct numbers from 0 up"),
        ("dataset.time_points=8", "dataset.time_points=8: too few for the 4 cycles of class 3; more than 8"),
        ("dataset.group_by=[sex]", "the sinusoids have only class"),
        ("dataset.target=sex", "the sinusoids have only class"),
        ("dataset.scaling=x", "dataset.scaling=x: unknown"),
    ],
)
def test_mistakes_end_in_one_line_that_names_the_key(config: Make, override: str, message: str) -> None:
    with pytest.raises(AutoSpecError, match=message) as error:
        datasets.check(config("sinusoid", override))
    assert "\n" not in str(error.value)
