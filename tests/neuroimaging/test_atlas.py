"""Regions of an atlas: their means voxel by voxel, maps by a joint fit, and what a grid loses."""

import nibabel
import numpy as np
import pytest
from neuroimaging import slow_ica
from neuroimaging.conftest import AFFINE, SHAPE

from autospec.errors import AutoSpecError
from autospec.neuroimaging import AtlasTimecourses, constrained_ica


def saved(folder, name, values, affine=AFFINE):
    file = folder / name
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), file)
    return file


@pytest.fixture
def labels():
    values = np.zeros(SHAPE)
    values[2:5, 2:6, 2:5], values[6:9, 7:11, 3:6], values[3:6, 8:12, 6:9] = 3, 7, 12
    return values


def test_a_region_s_time_course_is_the_mean_of_its_voxels(cohort, tmp_path, labels):
    model = AtlasTimecourses(saved(tmp_path, "atlas.nii.gz", labels)).fit(cohort.scans)
    assert model.names_ == ("3", "7", "12")
    scan = nibabel.load(cohort.scans[1])
    expected = np.stack([scan.get_fdata()[labels == label].mean(axis=0) for label in (3, 7, 12)], axis=1)
    assert np.allclose(model.extract(cohort.scans[1]), expected, rtol=1e-5)


def test_maps_are_fitted_jointly(cohort, tmp_path):
    maps = nibabel.load(cohort.template).get_fdata()
    model = AtlasTimecourses(cohort.template).fit(cohort.scans)
    scan = nibabel.load(cohort.scans[0]).get_fdata()
    design = maps.reshape(-1, maps.shape[3])
    expected = np.linalg.lstsq(design, scan.reshape(-1, scan.shape[3]), rcond=None)[0].T
    assert np.allclose(model.extract(cohort.scans[0]), expected, rtol=1e-3, atol=1e-2)


def test_an_atlas_on_another_grid_is_resampled_and_lost_labels_are_named(cohort, tmp_path, labels):
    fine = np.repeat(np.repeat(np.repeat(labels, 2, 0), 2, 1), 2, 2)
    fine[0, 0, 0] = 99
    affine = AFFINE.copy()
    affine[:3, :3] /= 2
    affine[:3, 3] -= AFFINE[:3, :3] @ np.full(3, 0.25)
    model = AtlasTimecourses(saved(tmp_path, "fine.nii.gz", fine, affine)).fit(cohort.scans)
    assert set(model.names_) == {"3", "7", "12"}
    assert model.absent_ == ("99",)


def test_mistakes_are_named(cohort, tmp_path, labels):
    with pytest.raises(AutoSpecError, match="has no region within the scans"):
        AtlasTimecourses(saved(tmp_path, "empty.nii.gz", np.zeros(SHAPE))).fit(cohort.scans)
    with pytest.raises(AutoSpecError, match="has 2 dimensions, not 3 or 4"):
        AtlasTimecourses(saved(tmp_path, "flat.nii.gz", np.zeros(SHAPE[:2]))).fit(cohort.scans)
    with pytest.raises(AutoSpecError, match="there is no such file"):
        AtlasTimecourses(tmp_path / "none.nii.gz").fit(cohort.scans)
    mask = saved(tmp_path, "mask.nii.gz", labels == 3)
    model = AtlasTimecourses(saved(tmp_path, "atlas.nii.gz", labels), mask).fit(cohort.scans)
    with pytest.raises(AutoSpecError, match="2 of 3 regions have no voxel within the mask"):
        model.extract(cohort.scans[0])


@pytest.mark.slow
def test_a_hundred_and_five_maps_are_one_reference_at_a_time():
    """NeuroMark 2 has 105; the numbers are those of the twin that GIFT's reference cases hold."""
    rng = np.random.default_rng(0)
    references = rng.laplace(size=(105, 900)) ** 3
    data = rng.normal(size=(60, 105)) @ references + rng.normal(size=(60, 900))
    maps, courses = constrained_ica(data, references)
    slow_maps, slow_courses = slow_ica.constrained_ica(data, references)
    np.testing.assert_allclose(maps, slow_maps, rtol=0, atol=1e-9)
    np.testing.assert_allclose(courses, slow_courses, rtol=0, atol=1e-8 * np.abs(slow_courses).max())
