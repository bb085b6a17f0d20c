"""Several sessions of a subject, and labels as tables and their JSON files have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

from autospec.cohorts.exclusions import Account
from autospec.cohorts.prepared_file import write_prepared
from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.datasets.cohort import build_cohort

Make = Callable[..., Any]
VALUES = {("1", "1"): 4000, ("1", "2"): 4200, ("2", "1"): 3900, ("3", "1"): 4100, ("3", "10"): 4300, ("3", "2"): 4050}


@pytest.fixture
def load(config: Make, tmp_path: Path) -> Callable[..., Any]:
    """A function (overrides …) → a table of six sessions of three subjects."""

    def make(*overrides: str, subjects: str | None = None) -> Any:
        rows = [f"sub-0{subject}_ses-{session}\t{value}" for (subject, session), value in VALUES.items()]
        (tmp_path / "aseg.tsv").write_text("\n".join(["Measure:volume\tLeft-Hippocampus", *rows]) + "\n")
        text = subjects or "participant_id\tdiagnosis\tsex\nsub-01\tSZ\tM\nsub-02\tHC\tF\nsub-03\tSZ\tF\n"
        (tmp_path / "participants.tsv").write_text(text)
        paths = (f"dataset.table={tmp_path / 'aseg.tsv'}", f"dataset.participants={tmp_path / 'participants.tsv'}")
        return datasets.load(config("freesurfer", *paths, "dataset.scaling=none", *overrides))

    return make


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        ("1", {"sub-01": 4000, "sub-02": 3900, "sub-03": 4100}),
        ("ses-02", {"sub-01": 4200, "sub-03": 4050}),
        ("first", {"sub-01": 4000, "sub-02": 3900, "sub-03": 4100}),
        ("last", {"sub-01": 4200, "sub-02": 3900, "sub-03": 4300}),
        ("average", {"sub-01": 4100, "sub-02": 3900, "sub-03": 4150}),
    ],
)
def test_a_session_is_chosen_or_sessions_are_averaged(
    load: Callable[..., Any], session: str, expected: dict[str, float]
) -> None:
    data = load(f"dataset.session={session}", "dataset.target=sex", "dataset.group_by=[sex]")
    assert dict(zip(data.subjects, data.inputs[:, 0].tolist(), strict=True)) == expected


def test_several_sessions_must_be_chosen_from(load: Callable[..., Any]) -> None:
    with pytest.raises(AutoSpecError, match="dataset.session=5: aseg.tsv has no such session, but 1, 10, 2"):
        load("dataset.session=5")


def test_all_sessions_are_samples_of_their_subjects(load: Callable[..., Any]) -> None:
    data = load("dataset.session=all")
    assert data.subjects == ("sub-01", "sub-01", "sub-02", "sub-03", "sub-03", "sub-03")
    assert data.inputs[:, 0].tolist() == list(VALUES.values())
    assert data.group_sizes() == [3, 1, 2]
    by_session = load("dataset.session=all", "dataset.group_by=[session]")
    assert by_session.groups == ("1", "10", "2")


def test_a_table_with_a_row_per_session_is_joined_by_it(load: Callable[..., Any]) -> None:
    rows = [f"sub-0{subject}\tses-0{session}\t{'SZ' if subject != '2' else 'HC'}\tM\t{30 + int(session)}"
            for subject, session in VALUES]  # fmt: skip
    text = "\n".join(["participant_id\tsession\tdiagnosis\tsex\tage", *rows]) + "\n"
    data = load("dataset.session=all", subjects=text)
    assert data.columns["age"] == ("31.0", "32.0", "31.0", "31.0", "40.0", "32.0")
    last = load("dataset.session=last", subjects=text)
    assert last.columns["age"] == ("32.0", "31.0", "40.0")
    with pytest.raises(AutoSpecError, match="aseg.tsv: holds several sessions of 1, 3; dataset.session chooses one"):
        load(subjects=text)


def test_sessions_of_a_prepared_cohort(config: Make, tmp_path: Path) -> None:
    courses = np.random.default_rng(0).normal(size=(4, 20, 53)).astype(np.float32)
    people = pd.DataFrame({
        "id": ["a", "a", "b", "b"], "session": ["1", "2", "1", "2"], "diagnosis": ["SZ", "SZ", "HC", "HC"],
        "sex": ["M", "M", "F", "F"],
    })  # fmt: skip
    write_prepared(tmp_path / "cohort.h5", people, {"timecourses": courses}, "two sessions")
    paths = (f"dataset.path={tmp_path / 'cohort.h5'}", "dataset.scaling=none")
    data = datasets.load(config("cobre_timeseries", *paths, "dataset.session=2"))
    assert data.subjects == ("a", "b")
    assert np.array_equal(data.inputs, courses[[1, 3]])
    with pytest.raises(AutoSpecError, match="time-courses of two sessions share no time axis"):
        datasets.load(config("cobre_timeseries", *paths, "dataset.session=average"))


def table(*rows: tuple[str, str]) -> pd.DataFrame:
    diagnosis, sex = zip(*rows, strict=True)
    return pd.DataFrame({"id": [f"s{n}" for n in range(len(rows))], "row": range(len(rows)),
                         "diagnosis": diagnosis, "sex": sex})  # fmt: skip


def test_labels_may_be_large_or_small(config: Make) -> None:
    found = build_cohort(table(("PATIENT", "FEMALE"), ("control", "MALE")), config("freesurfer"), Account())
    assert found.classes == ("HC", "SZ")
    assert found.columns["sex"] == ("women", "men")


def test_what_stands_for_missing_is_no_label(config: Make) -> None:
    subjects = table(*[("SZ", "M"), ("HC", "F")] * 2).assign(site=["A", ".", "#N/A", "B"])
    found = build_cohort(subjects, config("freesurfer", "dataset.group_by=[diagnosis,site]"), Account())
    assert found.subjects == ("s0", "s3")


def test_codes_are_what_the_json_file_says(config: Make, tmp_path: Path) -> None:
    rows = ["participant_id\tdiagnosis\tsex\tage", "sub-01\t1\t2\t-999", "sub-02\t0\t1\t30", "sub-03\t1\t1\t31"]
    (tmp_path / "participants.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "aseg.tsv").write_text("id\tLeft-Hippocampus\nsub-01\t4000\nsub-02\t4100\nsub-03\t4300\n")
    paths = (f"dataset.table={tmp_path / 'aseg.tsv'}", f"dataset.participants={tmp_path / 'participants.tsv'}")
    with pytest.raises(AutoSpecError, match="nobody|no subject has a usable value of diagnosis"):
        datasets.load(config("freesurfer", *paths))
    before = datasets.fingerprint(config("freesurfer", *paths))
    levels = {"diagnosis": {"Levels": {"0": "control", "1": "Patient"}},
              "sex": {"Levels": {"1": {"Description": "male"}, "2": "FEMALE"}}}  # fmt: skip
    (tmp_path / "participants.json").write_text(json.dumps(levels))
    data = datasets.load(config("freesurfer", *paths))
    assert [data.classes[code] for code in data.target] == ["SZ", "HC", "SZ"]
    assert data.columns["sex"] == ("women", "men", "men")
    assert data.columns["age"][0] == "nan"
    assert "diagnosis: 0 is control, 1 is Patient (participants.json)" in data.account
    assert datasets.fingerprint(config("freesurfer", *paths)) != before


def test_groups_that_are_bare_numbers_are_pointed_out(config: Make) -> None:
    account = Account()
    subjects = table(*[("SZ", "M"), ("HC", "F")] * 2).assign(arm=["1", "2", "2", "1"])
    build_cohort(subjects, config("freesurfer", "dataset.group_by=[arm]"), account)
    assert any(line.startswith("arm: groups are called 1, 2; dataset.labels.arm.NAME=[1]") for line in account.warnings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = ["participant_id\tdiagnosis\tsex", "sub-1\tSZ\tM", "sub-2\tHC\tF", "sub-3\tSZ\tF", "sub-4\tHC\tM"]
    (tmp_path / "participants.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def write_map(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.diag([6.0, 6, 6, 1])), file)


def maps(config: Make, folder: Path, *overrides: str) -> Any:
    return datasets.load(config("cobre_maps", f"dataset.path={folder}", "dataset.scaling=none", *overrides))


def test_a_background_of_nan_is_zero_and_said(config: Make, folder: Path) -> None:
    for number in range(1, 5):
        values = np.full((4, 5, 6), float(number))
        values[0] = np.nan
        write_map(folder / "maps" / f"sub-{number}_map.nii.gz", values)
    data = maps(config, folder)
    assert (data.inputs[:, 0, 0] == 0).all()
    assert (data.inputs[:, 0, 1:] == np.arange(1, 5)[:, None, None, None]).all()
    assert "maps: 30 voxels are NaN in most maps, taken as background (0)" in data.account


def test_a_map_of_another_scale_is_left_out_by_name(config: Make, folder: Path) -> None:
    for number in range(1, 5):
        values = np.random.default_rng(number).random((4, 5, 6))
        write_map(folder / "maps" / f"sub-{number}_map.nii.gz", values * (255 if number == 3 else 1))
    data = maps(config, folder)
    assert data.subjects == ("sub-1", "sub-2", "sub-4")
    assert any(line.startswith("left out: sub-3: values of its map reach 248") for line in data.account)


def test_tissue_probabilities_are_refused_and_one_volume_is_a_map(config: Make, folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        tissues = rng.dirichlet(np.ones(3), size=(4, 5, 6))
        write_map(folder / "maps" / f"sub-{number}_map.nii.gz", tissues)
    with pytest.raises(AutoSpecError, match="holds 3 probabilities of tissues, which add up to 1"):
        maps(config, folder)
    for number in range(1, 5):
        write_map(folder / "maps" / f"sub-{number}_map.nii.gz", np.full((4, 5, 6, 1), float(number)))
    assert maps(config, folder).inputs[:, 0, 0, 0, 0].tolist() == [1, 2, 3, 4]


def test_halfpipe_s_maps_are_read_where_they_lie_by_session(config: Make, folder: Path) -> None:
    for number in range(1, 5):
        for session in ("1", "2"):
            name = f"sub-{number}_ses-{session}_task-rest_feature-reHo_stat-reho_statmap.nii.gz"
            place = folder / f"sub-{number}" / "func" / "task-rest" / name
            write_map(place, np.full((4, 5, 6), 10 * number + float(session)))
    data = maps(config, folder, "dataset.session=average")
    assert data.inputs[:, 0, 0, 0, 0].tolist() == [11.5, 21.5, 31.5, 41.5]
    assert maps(config, folder, "dataset.session=2").inputs[:, 0, 0, 0, 0].tolist() == [12, 22, 32, 42]
