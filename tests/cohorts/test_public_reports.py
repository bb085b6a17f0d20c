"""Public reports of the field, rebuilt as small files: docs/layouts.md lists project, number, kind and outcome.

What other tests hold already is not repeated here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from cohort_files import scan, scan_of, write_image

from autospec.cohorts.exclusions import Account
from autospec.cohorts.motion import read_motion
from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.datasets.harmonization import harmonize
from autospec.neuroimaging.repetition_time import repetition_time_s

Make = Callable[..., Any]
Prepare = Callable[..., Any]


def with_step(file: Path, step: float, unit: str) -> Path:
    """The scan with another step in the fourth dimension."""
    image = nibabel.load(file)
    values = np.asarray(image.dataobj)
    image = nibabel.Nifti1Image(values, image.affine, image.header)
    image.header.set_xyzt_units("mm", unit)
    image.header.set_zooms((6, 6, 6, step))
    nibabel.save(image, file)
    return file


@pytest.mark.parametrize("step", [1.0, 1500.0, 0.0])
def test_a_step_that_is_no_repetition_time(bids: Path, prepared: Prepare, step: float) -> None:
    """1 after masking (fmriprep 3216, xcp_d 967); ms under the unit s (openneuro 3157); 0 (validator 776)."""
    file = with_step(scan_of(bids, 2), step, "sec")
    assert "give --tr" in prepared(bids).dropped["sub-02"]
    file.with_name("sub-02_task-rest_bold.json").write_text('{"RepetitionTime": 2.0}')
    assert repetition_time_s(file) == 2.0
    assert not prepared(bids).dropped


def test_displacement_that_is_missing_in_the_last_row_instead_of_the_first(tmp_path: Path) -> None:
    """aslprep 249, and the usual n/a of xcp_d 1395."""
    for rows in (["0.1", "0.3", "n/a"], ["n/a", "0.1", "0.3"]):
        file = tmp_path / "sub-1_desc-confounds_timeseries.tsv"
        file.write_text("\n".join(["framewise_displacement", *rows]) + "\n")
        assert read_motion(file).mean_displacement_mm == pytest.approx(0.2)


def test_a_table_of_confounds_with_one_row_too_many(bids: Path, prepared: Prepare) -> None:
    """fmriprep 3436."""
    names = "\t".join(["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"])
    file = scan_of(bids, 2).with_name("sub-02_task-rest_desc-confounds_timeseries.tsv")
    file.write_text("\n".join([names, *["0.1\t0\t0\t0\t0\t0"] * 31]) + "\n")
    assert "motion of 31 volumes, the scan has 30" in prepared(bids).dropped["sub-02"]


def test_harmonising_one_feature(config: Make) -> None:
    """neuroHarmonize 38, ComBatHarmonization 14: an error, or nothing but NaN."""
    pytest.importorskip("combatlearn")
    rng = np.random.default_rng(0)
    people = pd.DataFrame({
        "id": [f"s{i}" for i in range(40)], "diagnosis": ["SZ", "HC"] * 20, "sex": ["M"] * 20 + ["F"] * 20,
        "site": ["A", "B", "B", "A"] * 10,
    })  # fmt: skip
    values = rng.normal(size=(40, 1)) + 3 * (people["site"] == "B").to_numpy()[:, None]
    settings = config("freesurfer", "dataset.harmonize=[site]")
    found, _ = harmonize(values, people, np.ones(40, dtype=bool), settings, Account())
    assert np.isfinite(found).all()
    at_b = (people["site"] == "B").to_numpy()
    assert abs(found[at_b].mean() - found[~at_b].mean()) < 0.3


def test_a_site_of_held_out_subjects_alone(config: Make) -> None:
    """neuroHarmonize 50: an index out of bounds there."""
    people = pd.DataFrame({
        "id": [f"s{i}" for i in range(40)], "diagnosis": ["SZ", "HC"] * 20, "sex": ["M"] * 20 + ["F"] * 20,
        "site": ["A", "B", "B", "A"] * 9 + ["C"] * 4,
    })  # fmt: skip
    settings = config("freesurfer", "dataset.harmonize=[site]", "dataset.holdout=0.1")
    with pytest.raises(AutoSpecError, match=r"site C has 0 training subject\(s\) \(s36, s37, s38, s39\)"):
        harmonize(np.ones((40, 3)), people, np.arange(40) < 36, settings, Account())


def test_a_table_of_people_with_a_row_per_session(config: Make, tmp_path: Path) -> None:
    """bids-validator 820: several rows of one participant."""
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tsession\tdiagnosis\n"
        + "".join(f"sub-{n}\t{session}\t{'SZ' if n % 2 else 'HC'}\n" for n in range(1, 5) for session in (1, 2))
    )
    (tmp_path / "aseg.tsv").write_text(
        "Measure:volume\tLeft-Hippocampus\n" + "".join(f"sub-{n}\t{4000 + n}\n" for n in range(1, 5))
    )
    paths = (f"dataset.table={tmp_path / 'aseg.tsv'}", f"dataset.participants={tmp_path / 'participants.tsv'}")
    with pytest.raises(AutoSpecError, match="every subject occurs several times .* such as once per session"):
        datasets.load(config("freesurfer", *paths))


def test_volumes_as_percent_of_the_segmented_head_size(config: Make, tmp_path: Path) -> None:
    """freesurfer 1223: ``--stiv``."""
    (tmp_path / "participants.tsv").write_text("participant_id\tdiagnosis\nsub-1\tSZ\nsub-2\tHC\n")
    rows = "sub-1\t0.27\t1600000\t100\nsub-2\t0.26\t1500000\t100\n"
    (tmp_path / "aseg.tsv").write_text("Measure:volume\tLeft-Hippocampus\teTIV\tsTIV\n" + rows)
    paths = (f"dataset.table={tmp_path / 'aseg.tsv'}", f"dataset.participants={tmp_path / 'participants.tsv'}")
    with pytest.raises(AutoSpecError, match="none of them, but Left-Hippocampus_per_eTIV"):
        datasets.load(config("freesurfer", *paths))


def test_region_of_which_nothing_was_covered(tmp_path: Path, prepared: Prepare) -> None:
    """xcp_d 785: a column of n/a, as where an atlas region lies outside the scan."""
    folder = tmp_path / "halfpipe"
    for number in (1, 2, 3):
        values = [[f"{value:.6f}" for value in row] for row in np.random.default_rng(number).normal(size=(20, 4))]
        if number == 2:
            values = [[*row[:3], "n/a"] for row in values]
        file = folder / f"sub-{number}" / "func" / f"sub-{number}_task-rest_feature-a_timeseries.tsv"
        file.parent.mkdir(parents=True)
        file.write_text("\n".join("\t".join(row) for row in values) + "\n")
    (folder / "participants.tsv").write_text("participant_id\tdiagnosis\nsub-1\tSZ\nsub-2\tHC\nsub-3\tHC\n")
    assert prepared(folder).dropped == {"sub-2": "20 values of the time-courses are NaN or infinite"}


def test_a_scan_in_another_space_is_not_taken_for_one_in_the_template_s(bids: Path, prepared: Prepare) -> None:
    """nilearn 3479: scans of fMRIPrep in the subject's own space have names without ``space-``, and another grid."""
    turned = np.diag([5.0, 5.0, 5.0, 1.0])
    write_image(scan_of(bids, 2), scan(2), turned)
    assert "not 8 × 9 × 7 voxels of 6 × 6 × 6 mm" in prepared(bids).dropped["sub-02"]
