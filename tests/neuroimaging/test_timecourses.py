"""Cleaning of time-courses: against the GIFT toolbox's numbers, and each step by what it must do."""

from __future__ import annotations

import numpy as np
import pytest

from autospec.errors import AutoSpecError
from autospec.neuroimaging import clean, despike, detrend, low_pass, regress_out_motion, z_score

STEPS = [detrend, despike, z_score, lambda courses: low_pass(courses, 2.0)]


def noise(n_times=120, n_courses=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n_times, n_courses))


# ---- the reference numbers


@pytest.mark.parametrize("subject", [1, 2, 3])
def test_every_step_is_gift(reference, subject):
    courses, numbers = reference(f"base_s{subject}")["gift_tcs_rt"], reference("postproc_base")
    residual = detrend(courses)
    size = residual.std(axis=0, ddof=1)
    np.testing.assert_allclose(residual / size, numbers[f"tc_detrend3_{subject}"] / size, atol=2e-6)
    np.testing.assert_allclose(z_score(courses), numbers[f"tc_z_{subject}"], atol=2e-6)
    # GIFT despikes z-scores; the steps after detrending do not depend on the scale
    np.testing.assert_allclose(despike(residual) / size, numbers[f"tc_despiked_{subject}"], atol=2e-6)
    np.testing.assert_allclose(clean(courses, tr_s=2.0) / size, numbers[f"tc_filtered_{subject}"], atol=2e-6)
    assert np.array_equal((despike(residual) != residual).sum(axis=0), numbers[f"nspikes_{subject}"])


# ---- properties


@pytest.mark.parametrize("step", STEPS)
def test_a_step_keeps_shape_and_input_and_treats_components_alone(step):
    courses = noise()
    before = courses.copy()
    found = step(courses)
    assert found.shape == courses.shape
    assert np.array_equal(courses, before)
    np.testing.assert_allclose(step(courses[:, [1]]), found[:, [1]], atol=1e-12)


def test_detrending_takes_trends_and_nothing_else():
    ramp = np.linspace(0, 1, 120)
    waves = [np.sin(2 * np.pi * ramp), np.cos(4 * np.pi * ramp)]
    trend = np.column_stack([3 + 5 * ramp, 2 - ramp + waves[0], waves[1]])
    np.testing.assert_allclose(detrend(trend), 0, atol=1e-12)
    residual = detrend(noise())
    np.testing.assert_allclose(detrend(noise() + trend), residual, atol=1e-12)
    np.testing.assert_allclose(detrend(residual), residual, atol=1e-12)
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=1e-12)


def test_motion_goes_whatever_its_units():
    motion, courses = noise(n_courses=6, seed=1), detrend(noise())
    moved = courses + (motion - motion.mean(axis=0)) @ np.ones((6, 3))
    found = regress_out_motion(moved, motion)
    np.testing.assert_allclose((motion - motion.mean(axis=0)).T @ found, 0, atol=1e-10)
    np.testing.assert_allclose(regress_out_motion(moved, 7 - 1000 * motion), found, atol=1e-10)
    np.testing.assert_allclose(regress_out_motion(courses, motion), regress_out_motion(moved, motion), atol=1e-10)


def test_a_covariate_that_never_changes_is_left_out():
    motion = noise(n_courses=2, seed=1)
    still = np.column_stack([motion, np.full(120, 0.1)])
    np.testing.assert_allclose(regress_out_motion(noise(), still), regress_out_motion(noise(), motion), atol=1e-12)
    assert np.array_equal(regress_out_motion(noise(), still[:, 2:]), noise())


def test_a_spike_takes_the_value_around_it():
    courses = np.sin(np.linspace(0, 3, 100))[:, None] + 0.01 * noise(100, 1)
    spiked = courses.copy()
    spiked[[40, 99]] += [[30], [-30]]
    found = despike(spiked)
    window = spiked[36:45].mean()
    assert found[40, 0] == pytest.approx(window)
    # at the very end the average is the point itself, so that nothing is a spike there
    assert found[99] == spiked[99]
    untouched = np.setdiff1d(np.arange(100), np.flatnonzero(found != spiked))
    assert 40 not in untouched
    assert len(untouched) > 90


def test_the_moving_average_shrinks_centred_towards_the_ends():
    courses = noise(9, 1, seed=3) * 0.01
    courses[1] = 100.0
    assert despike(courses)[1, 0] == pytest.approx(courses[0:3].mean())


@pytest.mark.parametrize(("frequency_hz", "least", "most"), [(0.02, 0.999, 1.001), (0.08, 0.99, 1.01), (0.22, 0, 0.02)])
@pytest.mark.parametrize("tr_s", [0.72, 2.0])
def test_the_low_pass_passes_slow_waves_undelayed(frequency_hz, least, most, tr_s):
    time_s = np.arange(400) * tr_s
    wave = np.sin(2 * np.pi * frequency_hz * time_s)[:, None]
    middle = slice(100, 300)
    gain = (low_pass(wave, tr_s)[middle].T @ wave[middle]) / (wave[middle].T @ wave[middle])
    assert least <= abs(gain.item()) <= most


def test_z_scores():
    found = z_score(5 + 100 * noise())
    np.testing.assert_allclose(found.std(axis=0, ddof=1), 1)
    np.testing.assert_allclose(found, z_score(noise()), atol=1e-12)


def test_cleaning_is_its_steps_in_order():
    courses, motion = noise(), noise(n_courses=6, seed=1)
    by_hand = low_pass(despike(regress_out_motion(detrend(courses), motion)), 2.0)
    assert np.array_equal(clean(courses, 2.0, motion), by_hand)
    assert np.array_equal(clean(courses, None, low_pass_hz=None), despike(detrend(courses)))
    assert np.array_equal(clean(courses, 2.0, low_pass_hz=0.1), low_pass(despike(detrend(courses)), 2.0, 0.1))


# ---- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: detrend(np.zeros(5)), r"time-courses must be \(time, components\)"),
        (lambda: detrend(np.zeros((1, 5))), "2 volumes or more"),
        (lambda: despike(np.full((9, 2), np.nan)), "time-courses: 18 values are NaN or infinite"),
        (lambda: regress_out_motion(noise(), noise(119)), r"motion of shape \(119, 3\) does not fit 120 volumes"),
        (lambda: regress_out_motion(noise(), noise()[:, 0]), r"motion of shape \(120,\) does not fit"),
        (lambda: regress_out_motion(noise(), noise() * np.nan), "motion: 360 values are NaN or infinite"),
        (lambda: low_pass(noise(), 4.0), r"low_pass_hz=0.15: must lie between 0 and 0.125 Hz.* time of 4 s"),
        (lambda: low_pass(noise(), 2.0, 0), "low_pass_hz=0: must lie between"),
        (lambda: low_pass(noise(), 0.0), "tr_s=0.0: the repetition time must be a positive number"),
        (lambda: clean(noise(), None), "tr_s=None: the repetition time must be a positive number"),
        (lambda: low_pass(noise(15), 2.0), "15 volumes are too few for the low-pass: more than 15"),
        (lambda: z_score(noise() * [1, 0, 0]), r"have no z-scores: 2, 3 \(from 1\)"),
        (lambda: z_score(np.ones((9, 1)) + np.arange(9)[:, None]), "do not vary beyond their trend"),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(AutoSpecError, match=message):
        call()
