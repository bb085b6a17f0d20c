"""How subjects moved: files of SPM, FSL, AFNI, fMRIPrep and NIAK say the same of the same motion."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohort_files import scan_of

from autospec.cohorts.motion import framewise_displacement_mm, read_motion
from autospec.cohorts.prepared_file import read_prepared
from autospec.cohorts.source_files import find_confounds
from autospec.errors import AutoSpecError

Prepare = Callable[..., Any]

PARAMETERS = np.random.default_rng(0).normal(size=(30, 6)) * [0.2, 0.2, 0.2, 0.003, 0.003, 0.003]
"""mm and rad."""

DEGREES = np.column_stack([PARAMETERS[:, :3], np.rad2deg(PARAMETERS[:, 3:])])
FSL = PARAMETERS[:, [3, 4, 5, 0, 1, 2]]
FMRIPREP = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
NIAK = ["motion_tx", "motion_ty", "motion_tz", "motion_rx", "motion_ry", "motion_rz"]


def by_hand() -> float:
    """The mean framewise displacement, one volume and one parameter after the other."""
    total = 0.0
    for before, after in zip(PARAMETERS[:-1].tolist(), PARAMETERS[1:].tolist(), strict=True):
        total += sum(abs(after[k] - before[k]) for k in range(3))
        total += sum(50 * abs(after[k] - before[k]) for k in range(3, 6))
    return total / 29


def write(file: Path, values: np.ndarray, header: list[str] | None = None, joint: str = "\t") -> Path:
    lines = [joint.join(header)] if header else []
    text = "\n".join([*lines, *(joint.join(f"{value:.12g}" for value in row) for row in values)]) + "\n"
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def test_displacement_is_powers() -> None:
    """1 mm along one axis and 0.02 rad (1 mm on a sphere of 50 mm) about another are 2 mm; the way back too."""
    moved = np.zeros((4, 6))
    moved[1] = [1, 0, 0, 0, -0.02, 0]
    assert framewise_displacement_mm(moved).tolist() == pytest.approx([2, 2, 0])


@pytest.mark.parametrize("kind", ["rp_a.txt", "a.par", "a.1D", "a.tsv", "niak.tsv.gz"])
def test_every_program_s_file_gives_the_same(tmp_path: Path, kind: str) -> None:
    order = [3, 4, 5, 0, 1, 2]
    contents: dict[str, Callable[[Path], Path]] = {
        "rp_a.txt": lambda file: write(file, PARAMETERS, joint="  "),
        "a.par": lambda file: write(file, PARAMETERS[:, order], joint="  "),
        "a.1D": lambda file: write(file, DEGREES[:, order], header=["# roll pitch yaw dS dL dP"], joint=" "),
        "a.tsv": lambda file: write(file, PARAMETERS[:, order], [FMRIPREP[k] for k in order]),
        "niak.tsv.gz": lambda file: write(
            file, np.column_stack([DEGREES, np.ones((30, 2))]), [*NIAK, "slow_drift", "slow_drift"]
        ),
    }
    found = read_motion(contents[kind](tmp_path / kind))
    assert found.parameters is not None
    np.testing.assert_allclose(found.parameters, PARAMETERS, atol=1e-9)
    assert found.mean_displacement_mm == pytest.approx(by_hand())


def test_a_table_s_own_displacement_is_taken(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", np.column_stack([PARAMETERS, np.full(30, 0.3)]), [*FMRIPREP, "FD"])
    file.write_text(file.read_text().replace("\t0.3", "\tn/a", 1))
    assert read_motion(file).mean_displacement_mm == pytest.approx(0.3)
    assert np.isnan(read_motion(write(tmp_path / "b.tsv", np.ones((3, 1)), ["csf"])).mean_displacement_mm)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rp_a.txt", "1 2 3\n", "rp_a.txt: must hold six columns, the parameters of rigid motion"),
        ("rp_a.txt", "", "must hold six columns"),
        ("a.par", "1 2 3 4 5 x\n", "a.par: 'x' is no number"),
        ("a.par", "1 2 3 4 5 nan\n1 2 3 4 5 6\n", "a.par: motion parameters are missing in some rows"),
        ("a.tsv", "trans_x\ttrans_x\n1\t2\n", "a.tsv: column 'trans_x' occurs several times"),
        ("a.tsv", "FD\nfar\n", "a.tsv: 'far' is no number"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AutoSpecError, match=message):
        read_motion(tmp_path / name)


def test_parameter_files_beside_scans_are_found_and_regressed_out(
    bids: Path, prepared: Prepare, tmp_path: Path
) -> None:
    prepared(bids)
    without = read_prepared(tmp_path / "cohort.h5", "timecourses").data
    for number in (1, 2, 3):
        write(scan_of(bids, number).with_name(f"rp_sub-0{number}_task-rest_bold.txt"), number * PARAMETERS, joint=" ")
    account = prepared(bids)
    found = read_prepared(tmp_path / "cohort.h5", "timecourses")
    assert found.subjects["motion"].to_numpy()[:3] == pytest.approx(by_hand() * np.arange(1, 4), rel=1e-6)
    assert np.isnan(found.subjects["motion"][3])
    changed = np.abs(found.data - without).max(axis=(1, 2))
    assert changed[:3].min() > 1e-3
    assert changed[3] == 0
    assert "motion: mean framewise displacement of 3 of 4 subjects, from their files" in account.lines
    assert account.warnings[-2:] == [
        "motion is not regressed out, as there is no file of it: sub-04",
        "motion is not known for sub-04",
    ]


def test_a_pattern_says_where_parameters_lie_and_who_has_none_is_named(
    bids: Path, prepared: Prepare, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        write(scan_of(bids, number).parent / "mc_1.par", FSL, joint=" ")
    write(scan_of(bids, 3).parent / "mc_2.par", FSL, joint=" ")
    account = prepared(bids, motion="sub-{id}/func/mc_*.par")
    assert list(read_prepared(tmp_path / "cohort.h5", "timecourses").subjects["id"]) == ["sub-01", "sub-02"]
    reasons = "\n".join(account.text())
    assert "left out: 03: has 2 file(s) that fit --motion sub-{id}/func/mc_*.par" in reasons
    assert "left out: 04: has no file(s) that fit --motion sub-{id}/func/mc_*.par" in reasons
    for pattern, message in {
        "func/mc.par": "--motion func/mc.par: must have {id} where",
        "../{id}.par": "--motion ../{id}.par: must be relative to the folder and stay within it",
        "{id}/none.par": "no file fits --motion {id}/none.par",
    }.items():
        with pytest.raises(AutoSpecError) as raised:
            prepared(bids, motion=pattern)
        assert message in str(raised.value)


def test_parameters_of_other_length_name_the_person(bids: Path, prepared: Prepare) -> None:
    write(scan_of(bids, 2).with_name("sub-02_task-rest_bold.par"), FSL[:20], joint=" ")
    account = prepared(bids)
    assert "motion of 20 volumes, the scan has 30" in account.dropped["sub-02"]


def test_the_table_s_motion_stands_before_the_files(bids: Path, prepared: Prepare, tmp_path: Path) -> None:
    for number in range(1, 5):
        write(scan_of(bids, number).with_name(f"sub-0{number}_task-rest_bold.par"), FSL, joint=" ")
    table = bids / "participants.tsv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]}\tmean_fd", *(f"{line}\t0.{k}" for k, line in enumerate(lines[1:]))]))
    account = prepared(bids, columns={"motion": "mean_fd"})
    found = read_prepared(tmp_path / "cohort.h5", "timecourses").subjects["motion"]
    assert list(found) == [0.0, 0.1, 0.2, 0.3]
    assert any(line.startswith("motion: the phenotype table's column") for line in account.lines)


def test_the_columns_of_fmriprep_1_0_are_known(tmp_path: Path) -> None:
    names = ["X", "Y", "Z", "RotX", "RotY", "RotZ", "FramewiseDisplacement"]
    values = np.column_stack([PARAMETERS, np.full(30, 0.25)])
    found = read_motion(write(tmp_path / "old_confounds.tsv", values, names))
    assert found.parameters is not None
    assert np.allclose(found.parameters, PARAMETERS)
    assert found.mean_displacement_mm == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("columns", "motion_format"),
    [("degrees", "spm-degrees"), ("fsl", "fsl")],
)
def test_motion_in_another_order_or_unit_is_asked_about(tmp_path: Path, columns: str, motion_format: str) -> None:
    """Under SPM's ending, displacements would come out about 30 times too large."""
    file = write(tmp_path / "rp_a.txt", {"degrees": DEGREES, "fsl": FSL}[columns], joint=" ")
    with pytest.raises(AutoSpecError, match=r"rotations in degrees, or in the first three columns\? say which with"):
        read_motion(file)
    found = read_motion(file, motion_format)
    assert found.parameters is not None
    assert np.allclose(found.parameters, PARAMETERS)
    assert found.mean_displacement_mm == pytest.approx(by_hand())


@pytest.mark.parametrize(
    ("scan", "motion"),
    [
        ("swraufunc.nii", "rp_func.txt"),
        ("swrafunc.nii.gz", "rp_afunc.txt"),
        ("func.nii", "rp_func.txt"),
        ("sub-1_task-rest_run-1_bold.nii.gz", "sub-1_task-rest_run-01_desc-confounds_regressors.tsv"),
        (
            "sub-1_task-rest_run-01_space-MNI_desc-preproc_bold.nii.gz",
            "sub-1_task-rest_run-1_desc-confounds_timeseries.tsv",
        ),
        ("sub-1_task-rest_bold.nii.gz", "sub-1_task-rest_bold_confounds.tsv"),
    ],
)
def test_the_file_of_motion_is_found_under_the_names_of_its_program(tmp_path: Path, scan: str, motion: str) -> None:
    (tmp_path / scan).touch()
    (tmp_path / motion).touch()
    assert find_confounds(tmp_path / scan) == tmp_path / motion


@pytest.mark.parametrize(
    ("scan", "motion"),
    [
        ("func2.nii", "rp_func.txt"),
        ("sub-1_task-rest_run-1_bold.nii.gz", "sub-1_task-rest_run-2_desc-confounds_timeseries.tsv"),
        ("sub-1_task-rest_run-10_bold.nii.gz", "sub-1_task-rest_run-1_desc-confounds_timeseries.tsv"),
    ],
)
def test_another_scan_s_motion_is_not_taken(tmp_path: Path, scan: str, motion: str) -> None:
    (tmp_path / scan).touch()
    (tmp_path / motion).touch()
    assert find_confounds(tmp_path / scan) is None


def test_displacement_alone_is_not_said_to_be_regressed_out(bids: Path, prepared: Prepare) -> None:
    for number in range(1, 5):
        file = scan_of(bids, number).with_name(f"sub-0{number}_task-rest_desc-confounds_timeseries.tsv")
        names = FMRIPREP if number < 3 else ["framewise_displacement"]
        write(file, PARAMETERS if number < 3 else PARAMETERS[:, :1] ** 2, names)
    account = prepared(bids)
    assert "motion: 6 confounds regressed out of the time-courses of 2 subjects" in account.lines
    assert "motion is not regressed out, as the files hold displacement alone: sub-03, sub-04" in account.warnings


def test_confounds_of_another_length_are_found_before_the_ica(
    bids: Path, prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autospec.cohorts import scan_components

    seen: list[str] = []
    original = scan_components.prepare_scan
    monkeypatch.setattr(
        scan_components, "prepare_scan", lambda model, job: (seen.append(job.source.id), original(model, job))[1]
    )
    file = scan_of(bids, 2).with_name("sub-02_task-rest_desc-confounds_timeseries.tsv")
    write(file, PARAMETERS[:29], FMRIPREP)
    assert "motion of 29 volumes, the scan has 30" in prepared(bids).dropped["sub-02"]
    assert seen == ["sub-01", "sub-03", "sub-04"]
