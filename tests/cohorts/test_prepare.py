"""A folder of scans becomes a prepared cohort; no subject is lost or mislabelled in silence."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cohort_files import scan, scan_of, write_image

from autospec.cohorts.prepared_file import read_prepared
from autospec.errors import AutoSpecError
from autospec.neuroimaging.neuromark import NeuroMarkICA

Prepare = Callable[..., Any]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "cohort.h5"


def test_the_file_holds_what_ica_gives_for_each_id(bids: Path, prepared: Prepare, output: Path) -> None:
    account = prepared(bids)
    assert not account.dropped
    found = read_prepared(output, "timecourses")
    assert list(found.subjects["id"]) == [f"sub-0{n}" for n in range(1, 5)]
    assert list(found.subjects["diagnosis"]) == ["SZ", "HC", "SZ", "HC"]
    assert list(found.subjects["age"]) == [30, 31, 32, 33]
    files = [scan_of(bids, number) for number in range(1, 5)]
    expected = NeuroMarkICA(bids.parent / "template.nii.gz", clean=True).fit_transform(files)
    assert np.allclose(found.data, [one.timecourses for one in expected], atol=1e-3)
    with h5py.File(output) as root:
        mask = root["mask"][:].astype(bool)
        assert np.allclose(root["maps"][2], expected[2].maps, atol=1e-5)
        assert np.allclose(root["map_maximum"][2][mask], expected[2].maps.max(axis=0), atol=1e-5)
        assert (root["map_maximum"][:][:, ~mask] == 0).all()
        assert root["template_match"][:].min() > 0.8
        assert "sub-01" not in root.attrs["source"] and str(bids.parent) not in root.attrs["settings"]


def test_the_same_cohort_gives_the_same_bytes_also_elsewhere(bids: Path, prepared: Prepare, output: Path) -> None:
    prepared(bids)
    before = output.read_bytes()
    other = bids.parent / "elsewhere" / "study"
    shutil.copytree(bids, other)
    prepared(other, output=bids.parent / "second.h5")
    assert (bids.parent / "second.h5").read_bytes() == before


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(bids: Path, prepared: Prepare, output: Path) -> None:
    prepared(bids)
    prepared(bids, output=output.with_name("second.h5"), jobs=2)
    assert output.with_name("second.h5").read_bytes() == output.read_bytes()


def test_only_what_changed_is_prepared_again(
    bids: Path, prepared: Prepare, monkeypatch: pytest.MonkeyPatch, output: Path
) -> None:
    from autospec.cohorts import scan_components

    seen: list[str] = []
    original = scan_components.prepare_scan

    def noted(model: Any, job: Any) -> Any:
        seen.append(job.source.id)
        return original(model, job)

    monkeypatch.setattr(scan_components, "prepare_scan", noted)
    mask = write_image(bids.parent / "mask.nii.gz", (scan(1)[..., 0] > 500).astype(float))
    prepared(bids, mask=mask)
    assert seen == ["sub-01", "sub-02", "sub-03", "sub-04"]
    prepared(bids, mask=mask)
    assert len(seen) == 4
    write_image(scan_of(bids, 3), scan(33, volumes=30))
    prepared(bids, mask=mask)
    assert seen[4:] == ["sub-03"]
    prepared(bids, mask=mask, clean=False)
    assert len(seen) == 9
    part = next((output.parent / "cohort.h5.parts").glob("2-*.h5"))
    part.write_bytes(part.read_bytes()[:500])
    prepared(bids, mask=mask, clean=False)
    assert seen[9:] == ["sub-02"]


def test_a_corrected_repetition_time_is_taken_up(bids: Path, prepared: Prepare, output: Path) -> None:
    sidecar = bids / "task-rest_bold.json"
    sidecar.write_text('{"RepetitionTime": 2.0}')
    prepared(bids)
    before = read_prepared(output, "timecourses").data
    sidecar.write_text('{"RepetitionTime": 1.0}')
    prepared(bids)
    found = read_prepared(output, "timecourses").data
    prepared(bids, output=output.with_name("anew.h5"))
    assert np.array_equal(found, read_prepared(output.with_name("anew.h5"), "timecourses").data)
    assert not np.allclose(found, before)


def test_parts_of_an_older_version_are_made_anew(
    bids: Path, prepared: Prepare, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autospec.cohorts import scan_components

    prepared(bids)
    parts = output.with_name("cohort.h5.parts")
    before = {file.name: file.stat().st_mtime_ns for file in parts.glob("*.h5")}
    monkeypatch.setattr(scan_components, "VERSION", scan_components.VERSION + 1)
    prepared(bids)
    assert all(before[file.name] != file.stat().st_mtime_ns for file in parts.glob("*.h5"))


KILLED = """
import os, signal, sys
from pathlib import Path
from autospec.cohorts import scan_components
from autospec.cohorts.options import Options
from autospec.cohorts.prepare import prepare

original, done = scan_components.write_part, []

def write_part(*given):
    if len(done) == 2:
        Path(str(given[0]) + ".part").write_bytes(b"half a part")
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(original(*given))

scan_components.write_part = write_part
prepare(Options(Path(sys.argv[1]), Path(sys.argv[2]), template=Path(sys.argv[3])))
"""


@pytest.mark.slow
def test_a_preparation_that_was_killed_goes_on_and_ends_the_same(
    bids: Path, prepared: Prepare, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autospec.cohorts import scan_components

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, bids, output, bids.parent / "template.nii.gz"], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not output.exists()
    assert len(list((output.parent / "cohort.h5.parts").glob("*.h5"))) == 2
    seen: list[str] = []
    original = scan_components.prepare_scan
    monkeypatch.setattr(
        scan_components, "prepare_scan", lambda model, job: (seen.append(job.source.id), original(model, job))[1]
    )
    prepared(bids)
    assert seen == ["sub-03", "sub-04"]
    prepared(bids, output=output.with_name("second.h5"))
    assert output.read_bytes() == output.with_name("second.h5").read_bytes()


def test_one_scan_is_in_memory_at_a_time(bids: Path, prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    from autospec.cohorts import prepare as preparation
    from autospec.neuroimaging import neuromark

    alive: list[Any] = []

    def watched(original: Any, of: Any) -> Any:
        def call(*given: Any) -> Any:
            assert not any(reference() is not None for reference in alive), "a subject else's data are still there"
            found = original(*given)
            if (held := of(found)) is not None:
                alive.append(weakref.ref(held))
            return found

        return call

    monkeypatch.setattr(neuromark, "read_values", watched(neuromark.read_values, lambda found: found))
    monkeypatch.setattr(preparation, "read_part", watched(preparation.read_part, lambda found: found.maps))
    prepared(bids)
    assert len(alive) == 2 * 4 + 2 * 4  # scans: for ICA, for left and right; maps: for their maximum, to be stored


def test_an_id_may_have_underscores_where_the_pattern_tells_its_end(
    bids: Path, prepared: Prepare, output: Path
) -> None:
    rows = ["participant_id\tdiagnosis"]
    for number in range(1, 5):
        write_image(bids / "other" / f"S_0{number}" / "rest.nii.gz", scan(number))
        rows.append(f"S_0{number}\t{'SZ' if number % 2 else 'HC'}")
    (bids / "participants.tsv").write_text("\n".join(rows) + "\n")
    assert not prepared(bids, scans="other/{id}/rest.nii.gz").dropped
    assert list(read_prepared(output, "timecourses").subjects["id"]) == ["S_01", "S_02", "S_03", "S_04"]


def test_who_hardly_matches_the_template_is_named(
    bids: Path, prepared: Prepare, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autospec.cohorts import subject_file

    prepared(bids)
    with h5py.File(output) as root:
        worst = root["template_match"][:].min(axis=1)
    order = np.argsort(worst)
    monkeypatch.setattr(subject_file, "POOR_MATCH", float(worst[order[:2]].mean()))
    account = prepared(bids)
    poor = [line for line in account.warnings if line.startswith("a map correlates weakly")]
    assert len(poor) == 1
    assert poor[0].endswith(f": sub-0{order[0] + 1}")


def test_everybody_who_cannot_be_used_is_named_with_the_reason(bids: Path, prepared: Prepare, output: Path) -> None:
    rows = (bids / "participants.tsv").read_text() + "sub-05\tHC\tM\t40\n7\tSZ\tF\t41\n"
    rows += "sub-8\tSZ\tF\t41\n08\tHC\tF\t42\n"
    rows += "sub-09\t\tF\t42\nsub-10\tHC\tF\t-9999\nsub-11\tHC\tF\t50\nsub-12\tHC\tF\t50\n"
    (bids / "participants.tsv").write_text(rows)
    truncated = scan_of(bids, 1)
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    write_image(scan_of(bids, 3), scan(3, volumes=20))
    write_image(scan_of(bids, 6), scan(6))
    gaps = scan(7)
    gaps[4, 4, 3, 5] = np.nan
    write_image(bids / "sub-007" / "func" / "sub-007_task-rest_bold.nii.gz", gaps)
    write_image(scan_of(bids, 8), scan(8))
    write_image(scan_of(bids, 9), scan(9))
    write_image(bids / "sub-10" / "func" / "sub-10_task-rest_bold.nii.gz", scan(10, volumes=40))
    write_image(bids / "sub-11" / "func" / "sub-11_task-rest_bold.nii.gz", scan(11), np.diag([5.0, 5, 5, 1]))
    for run in (1, 2):
        write_image(bids / "sub-12" / "func" / f"sub-12_task-rest_run-{run}_bold.nii.gz", scan(12))
    account = prepared(bids)
    subjects = read_prepared(output, "timecourses").subjects
    assert list(subjects["id"]) == ["sub-02", "sub-04", "sub-09", "sub-10"]
    assert list(subjects["diagnosis"]) == ["HC", "HC", "", "HC"]
    assert np.isnan(subjects["age"][3])
    reasons = account.dropped
    assert "sub-01_task-rest_bold.nii.gz: is truncated or damaged" in reasons["sub-01"]
    assert reasons["sub-03"] == "has 20 volumes, fewer than 30"
    assert reasons["sub-05"].startswith("has no data in study")
    assert reasons["06"] == "is in study but has no row in the phenotype table"
    assert "NaN or infinite in 1 voxels of the mask" in reasons["7"]
    assert reasons["sub-8"] == reasons["08"] == "the id occurs 2 times in the phenotype table"
    assert "not 8 × 9 × 7 voxels of 6 × 6 × 6 mm" in reasons["sub-11"]
    assert reasons["12"].startswith("has 2 scans (sub-12/func/sub-12_task-rest_run-1_bold.nii.gz, ")
    assert "sub-10: the first 30 of 40 volumes are used" in account.lines
    assert "diagnosis: HC 3, missing 1" in account.lines
    with h5py.File(output) as root:
        assert root["account"].asstr()[:].tolist() == list(account.text())


def test_other_prefixes_and_padding_join_by_number(bids: Path, prepared: Prepare, output: Path) -> None:
    rows = ["participant_id\tdiagnosis\tsex"] + [f"COBRE_00{n}\t{'SZ' if n % 2 else 'HC'}\tM" for n in (4, 3, 2, 1)]
    (bids / "participants.tsv").write_text("\n".join(rows) + "\n")
    account = prepared(bids)
    assert list(read_prepared(output, "timecourses").subjects["id"]) == [f"COBRE_00{n}" for n in range(1, 5)]
    assert list(read_prepared(output, "timecourses").subjects["diagnosis"]) == ["SZ", "HC", "SZ", "HC"]
    assert account.warnings[0].startswith("ids are compared by their numbers alone: COBRE_004, COBRE_003")


def test_motion_comes_from_the_confounds_and_is_regressed_out(bids: Path, prepared: Prepare, output: Path) -> None:
    prepared(bids)
    without = read_prepared(output, "timecourses").data
    rng = np.random.default_rng(0)
    names = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "framewise_displacement"]
    for number in range(1, 5):
        values = rng.normal(size=(30, 7))
        values[:, 6] = number / 10
        lines = ["\t".join(map(str, row)) for row in values]
        lines[0] = lines[0].rsplit("\t", 1)[0] + "\tn/a"
        file = scan_of(bids, number).with_name(f"sub-0{number}_task-rest_desc-confounds_timeseries.tsv")
        file.write_text("\n".join(["\t".join(names), *lines]) + "\n")
    prepared(bids)
    found = read_prepared(output, "timecourses")
    assert np.allclose(found.subjects["motion"], [0.1, 0.2, 0.3, 0.4])
    assert np.abs(found.data - without).max() > 1e-3


def test_a_column_may_name_the_scans_but_never_leave_the_folder(bids: Path, prepared: Prepare, output: Path) -> None:
    table = bids / "participants.tsv"
    lines = table.read_text().splitlines()
    files = [str(scan_of(bids, number).relative_to(bids)) for number in (2, 1, 4)]
    table.write_text(
        "\n".join([lines[0] + "\tscan", *(f"{a}\t{b}" for a, b in zip(lines[1:], [*files, ""], strict=True))])
    )
    account = prepared(bids, files_column="scan")
    assert account.dropped == {"sub-04": "scan names no file"}
    assert list(read_prepared(output, "timecourses").subjects["id"]) == ["sub-01", "sub-02", "sub-03"]
    for outside in ("../template.nii.gz", str(bids.parent / "template.nii.gz"), "link.nii.gz"):
        (bids / "link.nii.gz").unlink(missing_ok=True)
        (bids / "link.nii.gz").symlink_to(bids.parent / "template.nii.gz")
        table.write_text(f"{lines[0]}\tscan\n{lines[1]}\t{outside}\n")
        with pytest.raises(AutoSpecError, match="subject sub-01: scan is .*, which leaves"):
            prepared(bids, files_column="scan")


def test_indi_and_niak_folders_are_recognised(bids: Path, prepared: Prepare, output: Path) -> None:
    indi, niak = bids.parent / "indi", bids.parent / "niak"
    header = ",Current Age,Gender,Handedness,Subject Type,Diagnosis"
    rows = ["0040001,20,Male,Right,Patient,295.3", "0040002,Disenrolled,Female,Right,Disenrolled,"]
    rows += ["0040003,31,Female,Right,Control,None"]
    write = {1: scan(1), 2: scan(2), 3: scan(3)}
    for number, values in write.items():
        write_image(indi / f"004000{number}" / "session_1" / "rest_1" / "rest.nii.gz", values)
        write_image(niak / f"fmri_004000{number}.nii.gz", values)
    (indi / "COBRE_phenotypic_data.csv").write_text("\n".join([header, *rows]) + "\n")
    account = prepared(indi)
    subjects = read_prepared(output, "timecourses").subjects
    assert list(subjects["id"]) == ["0040001", "0040002", "0040003"]
    assert list(subjects["diagnosis"]) == ["Patient", "Disenrolled", "Control"]
    assert list(subjects["Diagnosis"]) == ["295.3", "", "None"]
    assert "age: no number for 0040002 (Disenrolled)" in account.lines
    import gzip

    head = "ID\tCurrent Age\tGender\tHandedness\tSubject Type\tDiagnosis\tFrames OK\tFD\tFD Scrubbed"
    lines = [f"4000{n}\t{20 + n}\tMale\tRight\tControl\tNone\t90\t0.{n}\t0.1" for n in (3, 2, 1)]
    with gzip.open(niak / "phenotypic_data.tsv.gz", "wt") as file:
        file.write("\n".join([head, *lines]) + "\n")
    prepared(niak)
    subjects = read_prepared(output, "timecourses").subjects
    assert list(subjects["id"]) == ["40001", "40002", "40003"]
    assert list(subjects["motion"]) == [0.1, 0.2, 0.3]
    assert list(subjects["age"]) == [21, 22, 23]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": None}, "--template: the NeuroMark template"),
        ({"tr_s": -2.0}, "--tr -2: must be seconds between two volumes"),
        ({"session": 0}, "--session 0: must be 1 or more"),
        ({"low_pass_hz": 0.0}, "--low-pass 0: must be a frequency above 0 Hz, or 0 for no filter"),
        ({"low_pass_hz": -0.1}, "--low-pass -0.1: must be a frequency above 0 Hz"),
        ({"low_pass_hz": float("nan")}, "--low-pass nan: must be a frequency above 0 Hz"),
        ({"jobs": 0}, "--jobs 0: must be 1 or more"),
        ({"volumes": 400}, "--volumes 400: no subject has so many; the longest scan has 30"),
        ({"columns": {"sex": "Gender"}}, "--column sex: .*participants.tsv has no column 'Gender'; it has"),
        ({"scans": "*_bold.nii.gz"}, "must have {id} where the subject's id stands"),
        ({"scans": "../{id}.nii.gz"}, "must be relative to the folder and stay within it"),
        ({"scans": "{id}_nothing.nii.gz"}, "no scan fits {id}_nothing.nii.gz"),
        ({"files_column": "scan"}, "--files scan: the phenotype table lacks it"),
        ({"phenotype": Path("nowhere.tsv")}, "there is no table of subjects nowhere.tsv"),
        ({"layout": "gift"}, "no output of GIFT for session 1"),
    ],
)
def test_mistakes_end_in_one_line(bids: Path, prepared: Prepare, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AutoSpecError, match=message.replace("{", r"\{").replace("}", r"\}").replace("*_", r"\*_")):
        prepared(bids, **options)


def test_nothing_but_a_prepared_cohort_is_overwritten(bids: Path, prepared: Prepare, output: Path) -> None:
    output.write_text("mine")
    with pytest.raises(AutoSpecError, match=r"--output .*cohort.h5: exists and is no prepared cohort"):
        prepared(bids)
    assert output.read_text() == "mine"
    with pytest.raises(AutoSpecError, match=r"--output .*: Not a directory"):
        prepared(bids, output=output / "below" / "cohort.h5")
    output.unlink()
    output.with_name("cohort.h5.parts").write_text("mine")
    with pytest.raises(AutoSpecError, match=r"--output .*: .*cohort.h5.parts cannot be made: File exists"):
        prepared(bids)


def test_a_folder_of_something_else_is_an_error(tmp_path: Path, prepared: Prepare) -> None:
    with pytest.raises(AutoSpecError, match="its layout is not recognised; choose --layout niak, indi, fmriprep, bids"):
        prepared(tmp_path)
    with pytest.raises(AutoSpecError, match="nowhere: there is no such folder"):
        prepared(tmp_path / "nowhere", output=tmp_path / "new" / "cohort.h5")
    assert not (tmp_path / "new").exists()
