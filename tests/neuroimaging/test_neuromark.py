"""NeuroMark on images: masks, grids, one scan at a time, options, errors; and ten real scans."""

from __future__ import annotations

import gzip
import logging
import pickle
import weakref

import nibabel
import numpy as np
import pytest
from neuroimaging.conftest import AFFINE, CENTRES_MM, SHAPE, blobs
from neuroimaging.slow_ica import correlations
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from autospec.errors import AutoSpecError
from autospec.neuroimaging import (
    COMPONENT_NAMES,
    DOMAINS,
    NeuroMarkICA,
    clean,
    constrained_ica,
    modes,
    neuromark,
    scale_maps,
    z_score,
)

FINER = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])


def image(values, affine=AFFINE):
    return nibabel.Nifti1Image(np.asarray(values, dtype=np.float32), affine)


def loaded(path):
    """The image with its values in memory, and no longer a file."""
    opened = nibabel.load(path)
    return nibabel.Nifti1Image(np.asarray(opened.dataobj), opened.affine, opened.header)


def changed(path, change):
    """A copy in memory of a scan or template with its values changed."""
    values = np.asarray(nibabel.load(path).dataobj).copy()
    return image(change(values), AFFINE)


def set_at(value, *index):
    def change(values):
        values[index] = value
        return values

    return change


# ---- what it computes


def test_components_are_those_of_the_masked_arrays(cohort):
    model = NeuroMarkICA(cohort.template)
    found = model.fit_transform(cohort.scans)
    inside = np.asarray(model.mask_img_.dataobj, dtype=bool)
    assert np.array_equal(inside, cohort.brain)
    for path, (maps, courses) in zip(cohort.scans, found, strict=True):
        data = np.asarray(nibabel.load(path).dataobj)[inside].T
        expected = constrained_ica(data, cohort.maps.astype(np.float32))
        np.testing.assert_allclose(maps, expected.maps, atol=1e-10)
        np.testing.assert_allclose(courses, expected.timecourses, atol=1e-8)
        assert correlations(maps, cohort.maps).min() > 0.9


def test_images_in_memory_and_single_images_do_too(cohort):
    model = NeuroMarkICA(loaded(cohort.template), image(cohort.brain))
    of_paths = model.fit_transform(cohort.scans)
    of_images = model.fit_transform([loaded(path) for path in cohort.scans])
    single = model.fit(str(cohort.scans[0])).transform(loaded(cohort.scans[0]))
    assert len(single) == 1
    for one, other in zip([*of_paths, of_paths[0]], [*of_images, *single], strict=True):
        assert np.array_equal(one.maps, other.maps)
        assert np.array_equal(one.timecourses, other.timecourses)


def test_the_default_mask_is_what_is_bright_in_every_scan(cohort):
    half = changed(cohort.scans[1], lambda values: values * (np.arange(SHAPE[0]) < 6)[:, None, None, None])
    model = NeuroMarkICA(cohort.template).fit([cohort.scans[0], half])
    inside = np.asarray(model.mask_img_.dataobj, dtype=bool)
    assert inside.any()
    assert not inside[6:].any()
    assert not (inside & ~cohort.brain).any()


def test_stored_integers_are_read_with_their_slope(cohort, tmp_path):
    exact = nibabel.load(cohort.scans[0])
    stored = nibabel.Nifti1Image(exact.get_fdata(), AFFINE)
    stored.set_data_dtype(np.int16)
    nibabel.save(stored, tmp_path / "stored.nii")
    model = NeuroMarkICA(cohort.template).fit(cohort.scans)
    coarse, fine = model.transform([tmp_path / "stored.nii", exact])
    assert correlations(coarse.maps, fine.maps).min() > 0.9999


def test_nan_outside_the_mask_does_not_matter(cohort):
    model = NeuroMarkICA(cohort.template).fit(cohort.scans)
    with_nan = changed(cohort.scans[0], set_at(np.nan, ~cohort.brain))
    template = changed(cohort.template, set_at(np.nan, ~cohort.brain))
    (plain,), (other,) = model.transform(cohort.scans[0]), NeuroMarkICA(template).fit_transform(with_nan)
    np.testing.assert_allclose(other.maps, plain.maps, atol=1e-12)


def test_maps_as_an_image(cohort):
    model = NeuroMarkICA(cohort.template, maps_as="image").fit(cohort.scans)
    (maps, courses), *_ = model.transform(cohort.scans)
    assert maps.shape == (*SHAPE, 4)
    np.testing.assert_array_equal(maps.affine, AFFINE)
    values = np.asarray(maps.dataobj)
    assert not values[~cohort.brain].any()
    arrays = clone(model).set_params(maps_as="array").fit(cohort.scans).transform(cohort.scans)
    np.testing.assert_array_equal(values[cohort.brain].T, arrays[0].maps)
    assert courses.shape == (30, 4)


def test_options_reach_the_algorithm(cohort):
    model = NeuroMarkICA(cohort.template, preparation="vn", timecourses="least_squares", dtype="float32")
    (maps, courses), *_ = model.fit_transform(cohort.scans)
    data = model.data_of(cohort.scans[0])
    expected = constrained_ica(data, model.references_, "vn", timecourses="least_squares", dtype="float32")
    assert np.array_equal(maps, expected.maps)
    assert np.array_equal(courses, expected.timecourses)
    assert maps.dtype == np.float32


# ---- the grid


@pytest.mark.parametrize("mirrored", [True, False])
def test_a_template_on_another_grid_is_resampled(cohort, caplog, mirrored):
    """Sampled twice as finely, or with its first axis the other way round: the same place, other voxels."""
    if mirrored:
        flip = np.array([[-1.0, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        template = image(blobs(SHAPE, AFFINE, CENTRES_MM, 6.0)[::-1], AFFINE @ flip)
    else:
        shape = tuple(2 * length for length in SHAPE)
        template = image(blobs(shape, FINER, CENTRES_MM, 6.0), FINER)
    with caplog.at_level(logging.INFO, logger="autospec"):
        model = NeuroMarkICA(template).fit(cohort.scans)
    assert "template the template in memory" in caplog.text
    assert "resampled to 12 × 14 × 11 voxels of 4 × 4 × 4 mm from (24, -30, -20)" in caplog.text
    np.testing.assert_allclose(model.references_, cohort.maps, atol=1e-5 if mirrored else 0.02)
    assert model.template_img_.shape == (*SHAPE, 4)
    found, expected = model.transform(cohort.scans), NeuroMarkICA(cohort.template).fit_transform(cohort.scans)
    assert min(correlations(a.maps, b.maps).min() for a, b in zip(found, expected, strict=True)) > 0.99


def test_a_template_on_the_scans_grid_is_taken_as_it_is(cohort, caplog):
    with caplog.at_level(logging.INFO, logger="autospec"):
        model = NeuroMarkICA(image(np.asarray(nibabel.load(cohort.template).dataobj), AFFINE + 1e-5)).fit(cohort.scans)
    assert not caplog.text
    assert np.array_equal(model.references_, cohort.maps.astype(np.float32))


def test_a_mask_on_another_grid_takes_the_nearest_voxel(cohort, caplog):
    finer = np.repeat(np.repeat(np.repeat(cohort.brain, 2, 0), 2, 1), 2, 2)
    with caplog.at_level(logging.INFO, logger="autospec"):
        model = NeuroMarkICA(cohort.template, image(finer, FINER)).fit(cohort.scans)
    assert "mask the mask in memory" in caplog.text
    assert np.array_equal(np.asarray(model.mask_img_.dataobj, dtype=bool), cohort.brain)


# ---- one at a time


def test_iterate_computes_when_asked_and_holds_one_scan(cohort, monkeypatch):
    """A later scan that is broken does no harm until its turn, and the one before it is gone by then."""
    alive = []
    read = neuromark.read_values
    monkeypatch.setattr(neuromark, "read_values", lambda *given: track(read(*given)))

    def track(voxels):
        assert not any(reference() is not None for reference in alive)
        alive.append(weakref.ref(voxels))
        return voxels

    broken = changed(cohort.scans[0], set_at(np.nan, 6, 6, 6))
    model = NeuroMarkICA(cohort.template).fit(cohort.scans)
    found = model.iterate([*cohort.scans, broken])
    assert not alive
    first = next(found)
    assert len(alive) == 1
    assert np.array_equal(first.maps, model.transform(cohort.scans[0])[0].maps)
    assert len([next(found), next(found)]) == 2
    with pytest.raises(AutoSpecError, match="NaN or infinite in 1 voxels of the mask"):
        next(found)


def test_a_fitted_model_can_be_sent_to_a_worker(cohort):
    model = NeuroMarkICA(cohort.template, clean=True).fit(cohort.scans)
    there = pickle.loads(pickle.dumps(model))  # noqa: S301 (our own object, as joblib sends it)
    assert np.array_equal(there.transform(cohort.scans[0])[0].maps, model.transform(cohort.scans[0])[0].maps)


# ---- scaling and cleaning


def test_scaled_maps_share_the_group_s_offset(cohort):
    model = NeuroMarkICA(cohort.template).fit(cohort.scans)
    plain = model.transform(cohort.scans)
    z = clone(model).set_params(scale=True).fit(cohort.scans)
    found = z.transform(cohort.scans)
    offsets = modes(np.mean([one.maps for one in plain], axis=0))
    np.testing.assert_allclose(z.offsets_, offsets)
    for one, raw in zip(found, plain, strict=True):
        np.testing.assert_allclose(one.maps, scale_maps(raw.maps, offsets))
        np.testing.assert_allclose(one.timecourses, z_score(raw.timecourses))
    np.testing.assert_allclose(next(z.iterate(cohort.scans)).maps, plain[0].maps)


def test_cleaning_takes_motion_and_the_repetition_time_of_the_header(cohort):
    rng = np.random.default_rng(0)
    motion = [rng.normal(size=(30, 6)), None, rng.normal(size=(30, 6))]
    raw = NeuroMarkICA(cohort.template).fit_transform(cohort.scans)
    found = NeuroMarkICA(cohort.template, clean=True).fit_transform(cohort.scans, motion=motion)
    for one, plain, moved in zip(found, raw, motion, strict=True):
        np.testing.assert_allclose(one.timecourses, clean(plain.timecourses, 2.0, moved), atol=1e-12)


def test_the_repetition_time_of_a_sidecar_or_of_the_call(cohort):
    raw = NeuroMarkICA(cohort.template).fit_transform(cohort.scans[0])[0].timecourses
    sidecar = cohort.scans[0].with_name(cohort.scans[0].name.replace(".nii.gz", ".json"))
    sidecar.write_text('{"RepetitionTime": 1.4}')
    (of_sidecar,) = NeuroMarkICA(cohort.template, clean=True).fit_transform(cohort.scans[0])
    (of_call,) = NeuroMarkICA(cohort.template, clean=True, tr_s=1.0, low_pass_hz=0.1).fit_transform(cohort.scans[0])
    np.testing.assert_allclose(of_sidecar.timecourses, clean(raw, 1.4), atol=1e-12)
    np.testing.assert_allclose(of_call.timecourses, clean(raw, 1.0, low_pass_hz=0.1), atol=1e-12)


def test_a_repetition_time_is_asked_for_only_where_it_is_needed(cohort):
    silent = loaded(cohort.scans[0])
    silent.header.set_xyzt_units("mm", "unknown")
    silent.header.set_zooms((4, 4, 4, 1.0))
    NeuroMarkICA(cohort.template).fit_transform(silent)
    NeuroMarkICA(cohort.template, clean=True, low_pass_hz=None).fit_transform(silent)
    with pytest.raises(AutoSpecError, match="the repetition time is not known.*give tr_s"):
        NeuroMarkICA(cohort.template, clean=True).fit_transform(silent)


# ---- errors


def scan_with(change):
    return lambda cohort, folder: {"images": [cohort.scans[0], changed(cohort.scans[1], change)]}


def truncated(cohort, folder):
    path = folder / "short_bold.nii.gz"
    path.write_bytes(cohort.scans[0].read_bytes()[:20_000])
    return {"images": path, "mask": image(cohort.brain)}


def truncated_plain(cohort, folder):
    path = folder / "short_bold.nii"
    path.write_bytes(gzip.decompress(cohort.scans[0].read_bytes())[:-4000])
    return {"images": path, "mask": image(cohort.brain)}


def no_image(cohort, folder):
    path = folder / "text_bold.nii.gz"
    path.write_text("this is no image")
    return {"images": path}


MISTAKES = {
    "3-D scan": (
        scan_with(lambda v: v[..., 0]),
        r"scan in memory: has 3 dimensions \(12, 14, 11\), not \(x, y, z, time\)",
    ),
    "5-D scan": (scan_with(lambda v: v[..., None]), "has 5 dimensions"),
    "one volume": (scan_with(lambda v: v[..., :1]), r"has 1 volume\(s\); at least 2 are needed"),
    "NaN": (scan_with(set_at(np.nan, 5, 5, 5, 9)), "NaN or infinite in 1 voxels of the mask"),
    "all NaN": (scan_with(lambda v: v * np.nan), "the first volume has no finite value"),
    "other shape": (
        scan_with(lambda v: v[:-1]),
        r"its grid \(11 × 14 × 11 .* differs from that of .*sub-1.*bold.nii.gz",
    ),
    "truncated gzip": (truncated, "short_bold.nii.gz: is truncated or damaged"),
    "truncated": (truncated_plain, "short_bold.nii: is truncated or damaged: its header claims"),
    "no image": (no_image, "text_bold.nii.gz: is truncated, damaged or no image"),
    "no file": (lambda c, f: {"images": f / "sub-9_bold.nii.gz"}, "scan .*sub-9_bold.nii.gz: there is no such file"),
    "an array": (
        lambda c, f: {"images": [np.zeros(SHAPE)]},
        "scan: a path or a nibabel image is needed, not a ndarray",
    ),
    "nothing": (lambda c, f: {"images": []}, "no images were given"),
    "other affine": (
        lambda c, f: {"images": [c.scans[0], image(np.ones((*SHAPE, 3)), AFFINE @ np.diag([-1, 1, 1, 1]))]},
        "resample the scans to one grid first",
    ),
    "no common voxel": (
        lambda c, f: {
            "images": [
                image(np.repeat(half[..., None], 3, axis=3))
                for half in (np.eye(12, 14)[:, :, None] * np.ones(11), 1 - np.eye(12, 14)[:, :, None] * np.ones(11))
            ]
        },
        "the masks of 2 scans have no voxel in common",
    ),
    "empty mask": (lambda c, f: {"mask": image(np.zeros(SHAPE))}, "mask the mask in memory: is zero everywhere"),
    "mask elsewhere": (
        lambda c, f: {"mask": image(np.ones((3, 3, 3)), AFFINE + 1000 * np.eye(4, k=3))},
        "mask the mask in memory: lies outside the scans' grid",
    ),
    "4-D mask": (lambda c, f: {"mask": image(np.ones((*SHAPE, 2)))}, r"mask .*: has 4 dimensions .*, not \(x, y, z\)"),
    "3-D template": (
        lambda c, f: {"template": image(c.brain)},
        r"template .*: has 3 dimensions .*not \(x, y, z, maps\)",
    ),
    "no template": (lambda c, f: {"template": f / "none.nii"}, "template .*none.nii: there is no such file"),
    "constant map": (
        lambda c, f: {"template": changed(c.template, set_at(3.0, ..., 2))},
        "template .*: constant inside the mask: map 3$",
    ),
    "template elsewhere": (
        lambda c, f: {"template": image(np.random.default_rng(0).random((3, 3, 3, 2)), AFFINE + 1000 * np.eye(4, k=3))},
        "template the template in memory: lies outside the scans' grid",
    ),
    "NaN in template": (
        lambda c, f: {"template": changed(c.template, set_at(np.nan, 5, 5, 5, 1))},
        "template .*: NaN or infinite in 1 voxels of the mask",
    ),
    "NaN in a finer template": (
        lambda c, f: {
            "template": image(set_at(np.nan, 10, 10, 10, 1)(blobs((24, 28, 22), FINER, CENTRES_MM, 6.0)), FINER)
        },
        "template .*: NaN or infinite in 1 voxels of the mask",
    ),
    "still scan": (scan_with(lambda v: v[..., :1] + 0 * v), "scan .*in memory: the data do not vary over time"),
    "preparation": (lambda c, f: {"preparation": "none"}, "preparation=none: unknown; allowed are rt, rv, vn"),
    "maps_as": (lambda c, f: {"maps_as": "nifti"}, "maps_as=nifti: unknown; allowed are array, image"),
    "motion of others": (lambda c, f: {"motion": [None]}, "motion is given for 1 of 3 scans; None stands for none"),
    "motion of other length": (
        lambda c, f: {"motion": [None, np.ones((29, 6)), None], "clean": True},
        r"scan .*sub-2.*: motion of shape \(29, 6\) does not fit 30 volumes",
    ),
    "slow scan": (lambda c, f: {"clean": True, "tr_s": 4.0}, "scan .*sub-1.*: low_pass_hz=0.15: must lie between"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(cohort, tmp_path, mistake):
    make, message = MISTAKES[mistake]
    changes = make(cohort, tmp_path)
    images, motion = changes.pop("images", cohort.scans), changes.pop("motion", None)
    with pytest.raises(AutoSpecError, match=message) as raised:
        NeuroMarkICA(**({"template": cohort.template} | changes)).fit_transform(images, motion=motion)
    assert "\n" not in str(raised.value)


def test_a_later_scan_on_another_grid_is_named(cohort):
    model = NeuroMarkICA(cohort.template).fit(cohort.scans)
    moved = image(nibabel.load(cohort.scans[0]).dataobj, AFFINE + 8 * np.eye(4, k=3))
    with pytest.raises(AutoSpecError, match="scan the scan in memory: its grid .* differs from that of the mask"):
        model.transform([*cohort.scans, moved])


def test_not_fitted(cohort):
    with pytest.raises(NotFittedError):
        NeuroMarkICA(cohort.template).transform(cohort.scans)


# ---- the template's components


def test_the_domains_are_all_53_components_in_order():
    assert [index for domain in DOMAINS for index in domain.indices] == list(range(53))
    assert [len(domain.indices) for domain in DOMAINS] == [5, 2, 9, 9, 17, 7, 4]
    assert COMPONENT_NAMES[0] == "SC 1"
    assert COMPONENT_NAMES[25] == "CC 26"
    assert COMPONENT_NAMES[-1] == "CB 53"


@pytest.mark.parametrize("preparation", ["rt", "rv", "vn"])
def test_every_component_of_ten_real_scans_follows_its_template_map(real_scans, preparation):
    scans = sorted((real_scans / "func").glob("*_bold.nii.gz"))
    model = NeuroMarkICA(real_scans / "neuromark.nii.gz", preparation=preparation, clean=True, tr_s=2.0)
    found = model.fit_transform(scans)
    assert len(found) == 10
    assert model.names_ == COMPONENT_NAMES
    for maps, courses in found:
        own = np.corrcoef(maps, model.references_)[:53, 53:]
        # each map is closer to its own template map than to any other, sign kept
        assert np.diag(own).min() > 0.3
        assert np.mean(np.argmax(own, axis=1) == np.arange(53)) > 0.9
        assert courses.shape == (148, 53)
        assert np.isfinite(courses).all()


def test_real_scans_with_the_template_on_another_grid(real_scans):
    scan = real_scans / "func" / "sub-01_task-rest_bold.nii.gz"
    template = nibabel.load(real_scans / "neuromark.nii.gz")
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = template.shape[0] - 1
    mirrored = nibabel.Nifti1Image(np.asarray(template.dataobj)[::-1], template.affine @ flip)
    plain, other = (NeuroMarkICA(given).fit_transform(scan)[0] for given in (template, mirrored))
    assert correlations(other.maps, plain.maps).min() > 0.999
