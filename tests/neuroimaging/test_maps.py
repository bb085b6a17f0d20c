"""Maps in z: against the GIFT toolbox's numbers, and by what a mode and a scale must do."""

from __future__ import annotations

import numpy as np
import pytest

from autospec.errors import AutoSpecError
from autospec.neuroimaging import modes, scale_maps


def test_offsets_and_maps_are_gift(reference):
    numbers = reference("postproc_base")
    maps = [reference(f"base_s{subject}")["gift_maps_rt"].astype(float) for subject in (1, 2, 3)]
    offsets = modes(np.mean(maps, axis=0))
    np.testing.assert_allclose(offsets, numbers["offsets"], atol=1e-6)
    for subject, own in enumerate(maps, start=1):
        np.testing.assert_allclose(scale_maps(own, offsets), numbers[f"ic_z_{subject}"], atol=2e-6)


def skewed(seed=0):
    """(2, 5000) Most values near 1 or −2, some far above."""
    rng = np.random.default_rng(seed)
    return np.array([[1.0], [-2.0]]) + 0.1 * rng.normal(size=(2, 5000)) + 5 * (rng.random((2, 5000)) < 0.1)


def test_the_mode_is_where_most_values_are_and_not_the_mean():
    assert modes(skewed()) == pytest.approx([1, -2], abs=0.1)
    assert abs(skewed().mean(axis=1) - [1, -2]).min() > 0.4


def test_zero_voxels_do_not_count():
    outside = np.hstack([skewed(), np.zeros((2, 20_000))])
    assert np.array_equal(modes(outside), modes(skewed()))


def test_the_mode_moves_with_the_map():
    maps = skewed()
    np.testing.assert_allclose(modes(3 * maps), 3 * modes(maps))


@pytest.mark.parametrize("n_voxels", [2, 9, 11, 30])
def test_few_voxels_have_a_mode_among_them(n_voxels):
    maps = skewed()[:, :n_voxels]
    assert np.all((maps.min(axis=1) <= modes(maps)) & (modes(maps) <= maps.max(axis=1)))


def test_scaled_maps_have_their_offset_at_zero_and_unit_size():
    maps = skewed()
    z = scale_maps(maps, modes(maps))
    np.testing.assert_allclose((z**2).sum(axis=1) / (maps.shape[1] - 1), 1)
    assert modes(z) == pytest.approx([0, 0], abs=0.02)
    np.testing.assert_allclose(scale_maps(-4 * maps, -4 * modes(maps)), -z)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modes(np.zeros((2, 9))), r"map 1 \(from 1\) is zero everywhere"),
        (lambda: modes(np.zeros(9)), r"maps must be \(components, voxels\)"),
        (lambda: modes(np.full((2, 9), np.nan)), "maps: 18 values are NaN or infinite"),
        (lambda: scale_maps(skewed(), [1.0]), r"offsets of shape \(1,\) do not fit 2 maps"),
        (lambda: scale_maps(np.ones((2, 9)), [0.0, 1.0]), r"map 2 \(from 1\) equals its offset everywhere"),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(AutoSpecError, match=message):
        call()
