"""Scans that would give wrong numbers in silence: refused, mended, or said by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from cohort_files import AFFINE, SHAPE, blobs, scan, scan_of, write_image

from autospec.cohorts.prepared_file import read_prepared
from autospec.errors import AutoSpecError
from autospec.neuroimaging.neuromark import NeuroMarkICA
from autospec.neuroimaging.orientation import closeness, mirrored

Prepare = Callable[..., Any]

SYMMETRIC = AFFINE.copy()
SYMMETRIC[:3, 3] = -AFFINE[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
"""x runs from −21 to 21 mm."""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "cohort.h5"


def without_codes(file: Path) -> None:
    """Take both codes, and so the places of voxels, out of a header."""
    image = nibabel.load(file)
    values = np.asarray(image.dataobj)
    bare = nibabel.Nifti1Image(values, None, image.header)
    bare.set_sform(None, 0)
    bare.set_qform(None, 0)
    nibabel.save(bare, file)


def test_a_scan_without_its_temporal_mean_is_refused_without_a_mask(
    bids: Path, prepared: Prepare, output: Path
) -> None:
    values = scan(2)
    write_image(scan_of(bids, 2), values - values.mean(axis=3, keepdims=True))
    account = prepared(bids)
    assert "of its first volumes is negative" in account.dropped["sub-02"]
    assert "give --mask" in account.dropped["sub-02"]
    mask = write_image(bids.parent / "mask.nii.gz", (scan(1)[..., 0] > 500).astype(float))
    assert not prepared(bids, mask=mask).dropped


def test_a_mask_that_has_missed_the_brain_is_refused(bids: Path, prepared: Prepare) -> None:
    few = np.zeros(SHAPE)
    few[2:5, 2:5, 2:4] = 1
    with pytest.raises(AutoSpecError, match="the mask has 18 voxels, no more than a scan has volumes"):
        prepared(bids, mask=write_image(bids.parent / "mask.nii.gz", few))
    for number in range(1, 5):
        bright = scan(number)
        bright[3:7, 3:6, 2:5] += 30_000
        write_image(scan_of(bids, number), bright)
    template = write_image(bids.parent / "wide.nii.gz", np.ones((*SHAPE, 1)) * blobs()[..., :1].clip(0.2))
    with pytest.raises(AutoSpecError, match="by brightness has 36 voxels, the template's brain 504: .*give --mask"):
        prepared(bids, template=template)


def test_a_scan_that_does_not_say_where_left_is_is_refused(bids: Path, prepared: Prepare, output: Path) -> None:
    without_codes(scan_of(bids, 3))
    account = prepared(bids)
    assert "sform and qform codes are both 0" in account.dropped["sub-03"]
    assert "give --orientation (RAS, LAS, template)" in account.dropped["sub-03"]
    expected = NeuroMarkICA(bids.parent / "template.nii.gz").fit_transform(write_image(bids / "whole.nii.gz", scan(3)))
    assert not prepared(bids, orientation="template", clean=False).dropped
    found = read_prepared(output, "timecourses")
    assert np.corrcoef(found.data[2][:, 0], expected[0].timecourses[:, 0])[0, 1] > 0.99
    with pytest.raises(AutoSpecError, match="--orientation LPS: must be RAS, LAS or template"):
        prepared(bids, orientation="LPS")


@pytest.mark.parametrize(("orientation", "step"), [("RAS", 6.0), ("LAS", -6.0)])
def test_an_orientation_that_is_said_is_taken(tmp_path: Path, orientation: str, step: float) -> None:
    """Voxel by voxel: the same numbers at the places that are said, about the middle."""
    whole = scan(1)
    file = write_image(tmp_path / "scan.nii.gz", whole, SYMMETRIC)
    template = write_image(tmp_path / "template.nii.gz", blobs(), SYMMETRIC)
    without_codes(file)
    mask = write_image(tmp_path / "mask.nii.gz", (whole[..., 0] > 500).astype(float), SYMMETRIC)
    model = NeuroMarkICA(template, mask, orientation=orientation).fit(file)
    assert model.mask_img_.affine[0, 0] == step
    inside = np.asarray(model.mask_img_.dataobj, dtype=bool)
    assert np.allclose(model.data_of(file), whole[inside].T, rtol=1e-6)


def test_whose_sides_are_exchanged_is_named(bids: Path, prepared: Prepare) -> None:
    for number in range(1, 5):
        values = scan(number)
        write_image(scan_of(bids, number), values[::-1] if number == 3 else values, SYMMETRIC)
    write_image(bids.parent / "template.nii.gz", blobs(), SYMMETRIC)
    warnings = [line for line in prepared(bids).warnings if line.startswith("left and right may be exchanged")]
    assert warnings == ["left and right may be exchanged: the mirrored template fits better for sub-03"]


def test_mirrored_maps_are_maps_from_the_right_read_from_the_left() -> None:
    maps = np.random.default_rng(0).normal(size=(*SHAPE, 2))
    mask = np.ones(SHAPE, dtype=bool)
    assert np.array_equal(mirrored(maps, mask, SYMMETRIC), maps[::-1].reshape(-1, 2).T)
    far = SYMMETRIC.copy()
    far[0, 3] += 30
    assert np.isnan(mirrored(maps, mask, far)).all()
    assert np.isnan(closeness(np.ones((5, mask.sum())), mirrored(maps, mask, far)))


def test_closeness_is_the_multiple_correlation_of_a_regression() -> None:
    rng = np.random.default_rng(0)
    data, references = rng.normal(size=(5, 200)), rng.normal(size=(3, 200))
    centred = data - data.mean(axis=1, keepdims=True)
    expected = []
    for reference in references:
        target = reference - reference.mean()
        fit = centred.T @ np.linalg.lstsq(centred.T, target, rcond=None)[0]
        expected.append(np.corrcoef(fit, target)[0, 1])
    assert closeness(data, references) == pytest.approx(np.mean(expected))


def test_repetition_times_that_differ_must_be_allowed(bids: Path, prepared: Prepare, output: Path) -> None:
    (scan_of(bids, 2).parent / "sub-02_task-rest_bold.json").write_text('{"RepetitionTime": 0.8}')
    with pytest.raises(AutoSpecError, match=r"repetition times differ \(0.8 s 1, 2 s 3\)"):
        prepared(bids)
    account = prepared(bids, allow=("tr",))
    assert "repetition time: 0.8 s 1, 2 s 3" in account.lines
    assert read_prepared(output, "timecourses").subjects["repetition_time_s"].tolist() == ["2", "0.8", "2", "2"]
    assert not prepared(bids, tr_s=2.0).dropped


@pytest.mark.parametrize(
    ("name", "entity"), [("sub-02_task-nback_bold", "task"), ("sub-02_ses-2_task-rest_bold", "session")]
)
def test_tasks_and_sessions_that_differ_must_be_allowed(bids: Path, prepared: Prepare, name: str, entity: str) -> None:
    file = scan_of(bids, 2)
    file.rename(file.with_name(f"{name}.nii.gz"))
    with pytest.raises(AutoSpecError, match=f"{entity}s differ .*: 02.*--allow {entity} takes them all|sub-02"):
        prepared(bids)
    assert not prepared(bids, allow=(entity,)).dropped


def test_a_scan_that_is_turned_is_left_out_by_name(bids: Path, prepared: Prepare) -> None:
    turned = AFFINE.copy()
    angle = np.deg2rad(3)
    turned[:2, :2] = 6 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    write_image(scan_of(bids, 2), scan(2), turned)
    reason = prepared(bids).dropped["sub-02"]
    assert "RAS turned by 3.00°, not 8 × 9 × 7 voxels of 6 × 6 × 6 mm from (0, 0, 0), RAS as most have" in reason


def test_a_mask_of_probabilities_is_cut_at_a_half(bids: Path, prepared: Prepare) -> None:
    probable = (scan(1)[..., 0] > 500) * 0.9 + 0.1
    mask = write_image(bids.parent / "mask.nii.gz", probable)
    assert "mask: 210 voxels" in prepared(bids, mask=mask).lines


def test_lengths_that_would_leave_most_out_are_asked_about(bids: Path, prepared: Prepare) -> None:
    for number in range(1, 5):
        write_image(scan_of(bids, number), scan(number, volumes=40 - number))
    with pytest.raises(AutoSpecError, match=r"39 would leave out 3 of 4 subjects \(volumes: subjects are 36: 1, 37: 1"):
        prepared(bids)
    assert not prepared(bids, volumes=36).dropped


def test_sform_and_qform_that_differ_are_said_and_the_sform_used(bids: Path, prepared: Prepare) -> None:
    image = nibabel.load(scan_of(bids, 2))
    values = np.asarray(image.dataobj)
    other = AFFINE.copy()
    other[0, 3] = 50
    image = nibabel.Nifti1Image(values, AFFINE, image.header)
    image.set_sform(AFFINE, 2)
    image.set_qform(other, 1)
    nibabel.save(image, scan_of(bids, 2))
    account = prepared(bids)
    assert not account.dropped
    assert "sub-02: sform and qform put its voxels at different places; the sform is used" in account.lines


@pytest.mark.parametrize("slope", [1.0, 2.5])
def test_a_slope_in_the_header_is_applied(tmp_path: Path, slope: float) -> None:
    values = np.rint(scan(1)).astype(np.int16)
    image = nibabel.Nifti1Image(values, AFFINE)
    image.header.set_slope_inter(slope, 10)
    image.header.set_data_dtype(np.int16)
    file = tmp_path / "scan.nii"
    nibabel.save(image, file)
    raw = nibabel.load(file)
    model = NeuroMarkICA(write_image(tmp_path / "template.nii.gz", blobs())).fit(file)
    inside = np.asarray(model.mask_img_.dataobj, dtype=bool)
    assert np.allclose(model.data_of(file), raw.get_fdata()[inside].T, rtol=1e-6)


def test_the_derivatives_of_fmriprep_are_read_as_they_are(bids: Path, prepared: Prepare, output: Path) -> None:
    """In template space, with the table of the dataset above, and with the confounds that nilearn chooses."""
    derivatives = bids / "derivatives" / "fmriprep"
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        name = f"sub-0{number}_task-rest"
        place = derivatives / f"sub-0{number}" / "func"
        write_image(place / f"{name}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz", scan(number))
        write_image(place / f"{name}_space-T1w_desc-preproc_bold.nii.gz", scan(number + 10))
        columns = [f"{kind}_{axis}{power}" for kind in ("trans", "rot") for axis in "xyz"
                   for power in ("", "_derivative1", "_power2", "_derivative1_power2")]  # fmt: skip
        values = 0.01 * rng.normal(size=(30, len(columns)))
        rows = ["\t".join(columns), *("\t".join(map(repr, row)) for row in values.tolist())]
        (place / f"{name}_desc-confounds_timeseries.tsv").write_text("\n".join(rows) + "\n")
        (place / f"{name}_desc-confounds_timeseries.json").write_text("{}")
    account = prepared(derivatives)
    assert not account.dropped
    assert "motion: 6 confounds regressed out of the time-courses of 4 subjects" in account.lines
    plain = read_prepared(output, "timecourses").data
    account = prepared(derivatives, confounds=("motion",))
    assert "motion: 24 confounds regressed out of the time-courses of 4 subjects" in account.lines
    assert np.abs(read_prepared(output, "timecourses").data - plain).max() > 1e-3
    for strategy, message in ((("scrub",), "takes volumes out"), (("moton",), "--confounds moton: ")):
        with pytest.raises(AutoSpecError, match=message):
            prepared(derivatives, confounds=strategy)


def test_an_atlas_takes_the_place_of_the_template(bids: Path, prepared: Prepare, output: Path) -> None:
    labels = np.zeros(SHAPE)
    labels[1:4, 1:8, 1:6], labels[4:7, 1:8, 1:6] = 1, 2
    atlas = write_image(bids.parent / "atlas.nii.gz", labels)
    account = prepared(bids, template=None, atlas=atlas, clean=False)
    assert "atlas: 2 regions of atlas.nii.gz" in account.lines
    found = read_prepared(output, "timecourses")
    assert found.data.shape == (4, 30, 2)
    assert found.source == "regions of atlas.nii.gz in scans in study"
    expected = np.stack([scan(2)[labels == label].mean(axis=0) for label in (1, 2)], axis=1)
    assert np.allclose(found.data[1], expected, rtol=1e-5)
    with pytest.raises(AutoSpecError, match="--template and --atlas both say"):
        prepared(bids, atlas=atlas)


def test_every_session_is_kept_and_chosen_later(bids: Path, prepared: Prepare, output: Path, config: Any) -> None:
    from autospec.experiments import datasets

    for number in range(1, 5):
        scan_of(bids, number).unlink()
        for session in (1, 2):
            name = f"sub-0{number}_ses-0{session}_task-rest_bold.nii.gz"
            write_image(bids / f"sub-0{number}" / f"ses-0{session}" / "func" / name, scan(10 * session + number))
    with pytest.raises(AutoSpecError, match="every subject has several, choose with --scans"):
        prepared(bids)
    account = prepared(bids, all_sessions=True)
    assert not account.dropped
    found = read_prepared(output, "timecourses")
    assert list(found.subjects["id"])[:3] == ["sub-01_ses-01", "sub-01_ses-02", "sub-02_ses-01"]
    assert list(found.subjects["session"]) == ["1", "2"] * 4
    paths = (f"dataset.path={output}", "dataset.scaling=none")
    with pytest.raises(AutoSpecError, match="holds several sessions of 1, 2, 3, 4; dataset.session chooses one"):
        datasets.load(config("cobre_timeseries", *paths))
    second = datasets.load(config("cobre_timeseries", *paths, "dataset.session=2"))
    assert second.subjects == ("sub-01", "sub-02", "sub-03", "sub-04")
    assert np.array_equal(second.inputs, found.data[1::2])
    both = datasets.load(config("cobre_timeseries", *paths, "dataset.session=all"))
    assert both.subjects == tuple(f"sub-0{number}" for number in (1, 1, 2, 2, 3, 3, 4, 4))
