"""Constrained ICA: against the GIFT toolbox's numbers, against a slow twin, and by its properties."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from types import ModuleType

import numpy as np
import pytest
import torch
from neuroimaging import slow_ica
from neuroimaging.slow_ica import correlations

from autospec import neuroimaging
from autospec.errors import AutoSpecError
from autospec.neuroimaging import constrained, constrained_ica
from autospec.neuroimaging.voxels import BLOCK_VOXELS, Voxels

# lowest correlation with GIFT that is demanded of any map or time-course
CASES = [
    ("base_s1", "rt", 0.9999),
    ("base_s2", "rt", 0.9999),
    ("base_s3", "rt", 0.9999),
    ("mini_s1", "rt", 0.9999),
    ("base_s1", "rv", 0.9995),
    ("mini_s1", "rv", 0.9995),
    ("base_s1", "vn", 0.998),
    ("mini_s1", "vn", 0.98),
]


def simulated(seed=0, n_times=40, n_voxels=700, n_maps=4, noise=0.5):
    """Sparse sources mixed over time, with noise, and references that resemble the sources."""
    rng = np.random.default_rng(seed)
    sources = rng.laplace(size=(n_maps, n_voxels)) ** 3
    sources /= sources.std(axis=1, keepdims=True)
    data = 50 + rng.normal(size=(n_times, n_maps)) @ sources + noise * rng.normal(size=(n_times, n_voxels))
    return data, sources + 0.8 * rng.normal(size=sources.shape), sources


# ---- the reference numbers


@pytest.mark.parametrize(("case", "preparation", "least"), CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_agrees_with_gift(reference, case, preparation, least, dtype):
    numbers = reference(case)
    maps, courses = constrained_ica(numbers["X"], numbers["refs"], preparation, dtype=dtype)
    least = least if dtype == "float64" else min(least, 0.999)
    assert maps.dtype == courses.dtype == dtype
    assert correlations(maps, numbers[f"gift_maps_{preparation}"]).min() >= least
    assert correlations(courses.T, numbers[f"gift_tcs_{preparation}"].T).min() >= least


@pytest.mark.parametrize("case", ["base_s1", "base_s2", "base_s3", "mini_s1"])
def test_is_gift_to_the_rounding_of_the_stored_numbers(reference, case):
    numbers = reference(case)
    maps, courses = constrained_ica(numbers["X"], numbers["refs"])
    assert np.abs(maps - numbers["gift_maps_rt"]).max() < 1e-5
    np.testing.assert_allclose(courses, numbers["gift_tcs_rt"], atol=1e-6 * np.abs(courses).max())


@pytest.mark.parametrize("case", ["base_s1", "base_s2", "base_s3"])
def test_recovers_the_simulated_maps_better_than_dual_regression(reference, case):
    numbers = reference(case)
    truth, template = numbers["true_maps"], numbers["refs"].astype(float)
    found = np.abs(correlations(constrained_ica(numbers["X"], template).maps, truth)).mean()
    dual = np.abs(correlations(slow_ica.dual_regression(numbers["X"], template), truth)).mean()
    assert found >= 0.92
    assert found > dual + 0.05 > np.abs(correlations(template, truth)).mean()


# ---- the slow twin


@pytest.mark.parametrize("preparation", ["rt", "rv", "vn"])
@pytest.mark.parametrize("seed", range(5))
def test_the_batch_is_one_reference_at_a_time(preparation, seed):
    data, references, _ = simulated(seed, noise=[0.1, 0.5, 1, 2, 5][seed])
    maps, courses = constrained_ica(data, references, preparation)
    slow_maps, slow_courses = slow_ica.constrained_ica(data, references, preparation)
    np.testing.assert_allclose(maps, slow_maps, rtol=0, atol=1e-10)
    np.testing.assert_allclose(courses, slow_courses, rtol=0, atol=1e-10)


def test_small_data_of_many_kinds_are_as_the_slow_twin_has_them():
    """Some stop at the least step, some are stuck, some are off scale at first: there the constants decide."""
    rng = np.random.default_rng(11)
    for seed in range(60):
        n_times, n_voxels = (int(size) for size in rng.integers((10, 100), (40, 500)))
        data, references, _ = simulated(seed, n_times, n_voxels, n_maps=5, noise=10 ** rng.uniform(-1, 0.8))
        slow = slow_ica.constrained_ica(data, references)
        np.testing.assert_allclose(constrained_ica(data, references).maps, slow[0], rtol=0, atol=1e-10)


def test_the_harder_whitening_is_the_slow_twin_with_a_floor():
    data, references, _ = simulated(noise=0.14)
    data = slow_ica.prepared(data, "rt")
    standardised = (references - references.mean(1, keepdims=True)) / references.std(1, ddof=1, keepdims=True)
    whitened = constrained.whiten(Voxels(data), constrained.HARDER)
    assert 0 < len(whitened.values) < len(data)
    maps = constrained.estimate(Voxels(data), Voxels(standardised), constrained.HARDER).values
    np.testing.assert_allclose(maps, [slow_ica.one_map(data, one, 0.02) for one in references], rtol=0, atol=1e-10)


def test_maps_off_scale_are_estimated_again(monkeypatch, caplog):
    data, references, _ = simulated(noise=0.14)
    monkeypatch.setattr(constrained, "OFF_SCALE", -1.0)
    maps = constrained_ica(data, references).maps
    assert "off scale" in caplog.text
    slow = [slow_ica.one_map(slow_ica.prepared(data, "rt"), one, 0.02) for one in references]
    np.testing.assert_allclose(maps, slow, rtol=0, atol=1e-10)


# ---- properties


def test_finds_the_sources_with_their_sign():
    data, references, sources = simulated()
    found = constrained_ica(data, references).maps
    assert correlations(found, sources).min() > 0.97
    assert correlations(found, sources).min() > correlations(references, sources).max()
    np.testing.assert_allclose(constrained_ica(data, -references).maps, -found, atol=1e-10)


def test_maps_are_standardised_and_time_courses_their_covariance_with_the_volumes():
    data, references, _ = simulated()
    maps, courses = constrained_ica(data, references)
    np.testing.assert_allclose(maps.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(maps.std(axis=1), 1, atol=1e-9)
    centred = data - data.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(courses, centred @ maps.T / data.shape[1], atol=1e-12)


def test_least_squares_time_courses_leave_nothing_of_the_maps():
    data, references, _ = simulated()
    maps, courses = constrained_ica(data, references, timecourses="least_squares")
    centred = data - data.mean(axis=1, keepdims=True)
    np.testing.assert_allclose((centred - courses @ maps) @ maps.T, 0, atol=1e-8)
    assert np.array_equal(maps, constrained_ica(data, references).maps)


def test_references_do_not_know_of_one_another():
    data, references, _ = simulated()
    whole = constrained_ica(data, references)
    for index in (0, 3):
        alone = constrained_ica(data, references[[index]])
        np.testing.assert_allclose(alone.maps[0], whole.maps[index], atol=1e-10)
        np.testing.assert_allclose(alone.timecourses[:, 0], whole.timecourses[:, index], atol=1e-10)


def test_units_do_not_matter_to_maps():
    data, references, _ = simulated()
    maps, courses = constrained_ica(data, references)
    scaled = constrained_ica(1000 * data - 7, 3 * references + 100)
    np.testing.assert_allclose(scaled.maps, maps, atol=1e-9)
    np.testing.assert_allclose(scaled.timecourses, 1000 * courses, atol=1e-6)


def test_order_of_voxels_and_of_volumes_does_not_matter():
    data, references, _ = simulated()
    maps, courses = constrained_ica(data, references)
    rng = np.random.default_rng(1)
    voxels, volumes = rng.permutation(data.shape[1]), rng.permutation(len(data))
    shuffled = constrained_ica(data[volumes][:, voxels], references[:, voxels])
    np.testing.assert_allclose(shuffled.maps, maps[:, voxels], atol=1e-9)
    np.testing.assert_allclose(shuffled.timecourses, courses[volumes], atol=1e-9)


@pytest.mark.parametrize("preparation", ["rt", "rv", "vn"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_the_input_is_not_modified_and_may_be_read_only(preparation, dtype):
    data, references, _ = simulated()
    data, references = (100 * data).astype(dtype), references.astype(np.float64)
    before = data.copy(), references.copy()
    data.flags.writeable = references.flags.writeable = False
    plain = constrained_ica(data, references, preparation)
    torched = constrained_ica(data, references, preparation, device="cpu")
    assert np.array_equal(data, before[0])
    assert np.array_equal(references, before[1])
    np.testing.assert_allclose(torched.maps, plain.maps, atol=1e-9)


def test_a_voxel_without_signal_is_zero_in_no_preparation_nan():
    data, references, _ = simulated()
    data[:, 5] = 3.0
    for preparation in ("rt", "rv", "vn"):
        assert np.isfinite(constrained_ica(data, references, preparation).maps).all()


def test_fewer_voxels_than_volumes():
    data, references, _ = simulated(n_times=60, n_voxels=50, n_maps=2)
    maps, courses = constrained_ica(data, references)
    slow_maps, slow_courses = slow_ica.constrained_ica(data, references)
    np.testing.assert_allclose(maps, slow_maps, atol=1e-7)
    np.testing.assert_allclose(courses, slow_courses, atol=1e-7)


def test_a_repeated_volume_only_lowers_the_rank():
    data, references, _ = simulated()
    data[7] = data[3]
    maps, courses = constrained_ica(data, references)
    np.testing.assert_allclose(maps, slow_ica.constrained_ica(data, references)[0], atol=1e-9)
    np.testing.assert_allclose(courses[7], courses[3], atol=1e-9)


# ---- precision and devices


@pytest.mark.parametrize("preparation", ["rt", "rv", "vn"])
def test_float32_is_close(preparation):
    data, references, _ = simulated()
    exact, coarse = (constrained_ica(data, references, preparation, dtype=dtype) for dtype in ("float64", "float32"))
    assert coarse.maps.dtype == coarse.timecourses.dtype == np.float32
    np.testing.assert_allclose(coarse.maps, exact.maps, atol=1e-4)
    np.testing.assert_allclose(coarse.timecourses, exact.timecourses, atol=1e-4)


def test_tensors_in_give_tensors_out():
    data, references, _ = simulated()
    plain = constrained_ica(data, references)
    tensor = torch.from_numpy(data).requires_grad_()
    maps, courses = constrained_ica(tensor, torch.from_numpy(references))
    assert isinstance(maps, torch.Tensor)
    assert maps.dtype == courses.dtype == torch.float64
    np.testing.assert_allclose(maps.numpy(), plain.maps, atol=1e-10)
    np.testing.assert_allclose(courses.numpy(), plain.timecourses, atol=1e-10)
    mixed = constrained_ica(data, torch.from_numpy(references), dtype="float32")
    assert isinstance(mixed.maps, np.ndarray)
    assert mixed.maps.dtype == np.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_same():
    data, references, _ = simulated()
    plain, there = constrained_ica(data, references), constrained_ica(data, references, device="cuda")
    assert isinstance(there.maps, np.ndarray)
    np.testing.assert_allclose(there.maps, plain.maps, atol=1e-9)


def test_numpy_alone_does_not_load_torch():
    code = (
        "import sys, numpy as np; from autospec.neuroimaging import constrained_ica as run;"
        "r = np.random.default_rng(0);"
        "run(r.normal(size=(9, 99)), r.normal(size=(2, 99))); print({'torch', 'nibabel', 'sklearn'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_public_names_are_there_and_none_is_a_module():
    for name in neuroimaging.__all__:
        assert not isinstance(getattr(neuroimaging, name), ModuleType), name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        neuroimaging.nothing  # noqa: B018


# ---- the passes over voxels


@pytest.mark.parametrize("as_given", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("n_voxels", [5, BLOCK_VOXELS, 2 * BLOCK_VOXELS + 3])
def test_passes_in_blocks_are_whole_sums(as_given, n_voxels):
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(6, n_voxels)), rng.normal(size=(3, 6))
    voxels, mixed = Voxels(as_given(values)), weights @ values
    np.testing.assert_allclose(voxels.mean_log_cosh(weights), np.log(np.cosh(mixed)).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(voxels.mean_tanh(weights), np.tanh(mixed) @ values.T / n_voxels, atol=1e-13)
    np.testing.assert_allclose(voxels.products(voxels), values @ values.T / n_voxels, atol=1e-13)
    np.testing.assert_allclose(voxels.deviations(), values.std(axis=1, ddof=1), rtol=1e-12)


def test_log_cosh_neither_overflows_nor_vanishes():
    values = np.array([[1e6, -1e6], [1e-4, -1e-4]])
    found = Voxels(values).mean_log_cosh(np.eye(2))
    np.testing.assert_allclose(found, [1e6 - np.log(2), 0.5e-8], rtol=1e-7)


# ---- errors


def given(**changes):
    """Data and references of which some are replaced, or altered by a function."""
    data, references, _ = simulated(n_voxels=60)
    both = {"data": data, "references": references}
    return {name: changes[name](matrix) if name in changes else matrix for name, matrix in both.items()}


def with_value(value, row, column):
    def change(matrix):
        matrix[row, column] = value
        return matrix

    return change


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"preparation": "vt"}, "preparation=vt: unknown; allowed are rt, rv, vn"),
        ({}, {"timecourses": "ls"}, "timecourses=ls: unknown; allowed are covariance, least_squares"),
        ({}, {"dtype": "float16"}, "dtype=float16: unknown; allowed are float64, float32"),
        ({}, {"names": ["a"]}, "1 names do not fit 4 references"),
        ({}, {"device": "nowhere"}, "device=nowhere: not usable here for float64"),
        ({"data": lambda x: x[:, :50]}, {}, "data have 50 voxels, references 60"),
        ({"data": lambda x: x[0]}, {}, r"data must be \(time, voxels\), not of shape \(60,\)"),
        ({"references": lambda x: x[None]}, {}, r"references must be \(maps, voxels\), not of shape \(1, 4, 60\)"),
        ({"references": lambda x: x[:0]}, {}, "at least 2 voxels and 1 reference are needed, not 60 and 0"),
        ({"data": lambda x: x[:, :0], "references": lambda x: x[:, :0]}, {}, "needed, not 0 and 4"),
        ({"data": lambda x: x[:1]}, {}, r"data of 1 volume\(s\): at least 2 are needed"),
        ({"data": with_value(np.nan, 4, 3)}, {}, r"data: 1 values are NaN or infinite, the first in volume 5"),
        ({"references": with_value(np.inf, 2, 3)}, {}, r"references: 1 values are NaN or infinite, the first in map 3"),
        ({"references": with_value(7.0, 2, slice(None))}, {}, "constant reference maps have no direction: 3 of 4"),
        ({"references": with_value(0.0, 1, slice(None))}, {"names": list("abcd")}, r"no direction: 2 \(b\) of 4"),
        ({"data": lambda x: x * 0 + 0.1}, {}, "the data do not vary over time"),
        ({"data": lambda x: x[:, :1] + 0 * x}, {}, "the data do not vary over voxels"),
        ({"data": lambda x: x[:1] + 0 * x}, {"preparation": "vn"}, "the data do not vary over time"),
    ],
)
@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_a_mistake_is_named(changes, options, message, convert):
    matrices = {name: convert(matrix) for name, matrix in given(**changes).items()}
    with pytest.raises(AutoSpecError, match=message) as raised:
        constrained_ica(**matrices, **options)
    assert "\n" not in str(raised.value)


def test_a_reference_that_the_data_hold_nothing_of():
    data = np.array([[1.0, -1, 0, 0], [2, -2, 0, 0], [-1, 1, 0, 0]])
    with pytest.raises(AutoSpecError, match="the data hold nothing of reference map 2"):
        constrained_ica(data, np.array([[1.0, -1, 0, 1], [0, 0, 1, -1]]))


def test_no_variance_left():
    with pytest.raises(AutoSpecError, match=r"no eigenvalue of the data's covariance is above 0.02"):
        constrained.whiten(Voxels(np.eye(3) * 1e-3), constrained.HARDER)


# ---- cost


@pytest.mark.slow
def test_neuromark_on_a_whole_brain_takes_seconds_and_little_memory():
    """53 references × 60,000 voxels × 150 volumes in float64: under 3 s of one core, under 2 GiB."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    data, references, sources = simulated(n_times=150, n_voxels=60_000, n_maps=53, noise=3)
    with threadpoolctl.threadpool_limits(1):
        # time on the processor, so that what else runs on the machine does not count
        started = time.process_time()
        maps = constrained_ica(data, references).maps
        duration_s = time.process_time() - started
        tracemalloc.start()
        constrained_ica(data, references)
        peak_bytes = tracemalloc.get_traced_memory()[1] + data.nbytes + references.nbytes
        tracemalloc.stop()
    assert duration_s < 3
    assert peak_bytes < 2 * 2**30
    assert correlations(maps, sources).min() > 0.8
