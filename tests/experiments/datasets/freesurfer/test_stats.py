"""FreeSurfer's stats folders and tables of several kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autospec.cohorts.exclusions import Account
from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.datasets.freesurfer.cortex import CORTEX_FEATURES, kind_of
from autospec.experiments.datasets.freesurfer.stats import read_subjects

Make = Callable[..., Any]

ASEG = """# Title Segmentation Statistics
# cvs_version {version}
# Measure EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, {etiv}, mm^3
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax normRange
  1   10      8612     {thalamus}  Left-Thalamus{proper}   83.3   10.4    27.0   114.0    87.0
  2   17      4357     {hippocampus}  Left-Hippocampus    65.6     8.2     0.0    88.0    88.0
"""
V6, V7 = "$Id: mri_segstats.c,v 1.121 2016/05/31 17:27:11 greve Exp $", "7.0.0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four subjects: two of version 6, two of version 7, and FreeSurfer's own fsaverage."""
    for number in range(1, 5):
        stats = tmp_path / "subjects" / f"sub-{number}" / "stats"
        stats.mkdir(parents=True)
        values = {"etiv": 1.5e6 + number, "thalamus": 7000 + number, "hippocampus": 4000 + number}
        old = number < 3
        text = ASEG.format(version=V6 if old else V7, proper="-Proper" if old else "", **values)
        (stats / "aseg.stats").write_text(text)
    (tmp_path / "subjects" / "fsaverage" / "stats").mkdir(parents=True)
    rows = ["participant_id\tdiagnosis\tsex", "1\tSZ\tM", "2\tHC\tF", "3\tSZ\tF", "4\tHC\tM"]
    (tmp_path / "subjects.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def load(config: Make, folder: Path, *overrides: str) -> Any:
    paths = (f"dataset.subjects_dir={folder / 'subjects'}", f"dataset.participants={folder / 'subjects.tsv'}")
    return datasets.load(config("freesurfer", *paths, "dataset.scaling=none", *overrides))


def test_versions_are_named_and_joined_under_one_name(config: Make, folder: Path) -> None:
    data = load(config, folder)
    assert data.inputs.tolist() == [[7000 + n, 4000 + n] for n in range(1, 5)]
    assert "subjects: stats of 4 subjects; FreeSurfer 6 (sub-1, sub-2); 7.0.0 (sub-3, sub-4)" in data.account
    assert any(line.startswith("subjects: versions of FreeSurfer differ") for line in data.account)
    assert any(line.startswith("head_size: HC 1.5e+06") for line in data.account)
    assert data.source == "FreeSurfer stats of subjects"


@pytest.mark.parametrize("column", ["StructName", "Volume_mm3"])
def test_a_table_without_a_column_leaves_its_subject_out_by_name(config: Make, folder: Path, column: str) -> None:
    first = folder / "subjects" / "sub-1" / "stats" / "aseg.stats"
    first.write_text(first.read_text().replace(column, "Other"))
    data = load(config, folder)
    assert data.subjects == ("2", "3", "4")
    assert f"sub-1: aseg.stats cannot be read: its table has no column {column}" in data.account


def test_a_truncated_or_lacking_file_leaves_its_subject_out_by_name(config: Make, folder: Path) -> None:
    first = folder / "subjects" / "sub-1" / "stats" / "aseg.stats"
    first.write_text(first.read_text()[:-60])
    (folder / "subjects" / "sub-2" / "stats" / "aseg.stats").unlink()
    data = load(config, folder)
    assert data.subjects == ("3", "4")
    lines = "\n".join(data.account)
    assert "sub-1: aseg.stats cannot be read: the row of 2 has" in lines
    assert "left out: sub-1: has no readable stats in subjects" in lines
    assert "sub-2: has no aseg.stats, lh.aparc.stats, rh.aparc.stats" in lines
    assert "left out: sub-2: has no readable stats in subjects" in lines
    assert "left out: 1: has no data in subjects" in lines


def test_content_decides_the_fingerprint(config: Make, folder: Path) -> None:
    paths = (f"dataset.subjects_dir={folder / 'subjects'}", f"dataset.participants={folder / 'subjects.tsv'}")
    settings = config("freesurfer", *paths)
    before = datasets.fingerprint(settings)
    file = folder / "subjects" / "sub-4" / "stats" / "aseg.stats"
    file.write_text(file.read_text().replace("4004", "4005"))
    assert datasets.fingerprint(settings) != before


def test_mistakes_end_in_one_line(config: Make, folder: Path) -> None:
    subjects = f"dataset.participants={folder / 'subjects.tsv'}"
    for overrides, message in (
        ([f"dataset.subjects_dir={folder / 'nowhere'}", subjects], "dataset.subjects_dir=.*: there is no such folder"),
        ([f"dataset.subjects_dir={folder}", subjects], "no subject has stats/aseg.stats or aparc.stats"),
        ([f"dataset.subjects_dir={folder}"], "dataset.participants: is needed where dataset.subjects_dir is given"),
        ([f"dataset.subjects_dir={folder}", "dataset.table=x", subjects], "dataset.table is given too; choose one"),
        (["dataset.table=3", subjects], "dataset.table=3: must be a file, or a list of files"),
    ):
        with pytest.raises(AutoSpecError, match=message):
            datasets.load(config("freesurfer", *overrides))


def test_real_folders_of_versions_6_and_7(shared_data: Path, tmp_path: Path, config: Make) -> None:
    account = Account()
    table = read_subjects(shared_data / "freesurfer_subjects", account).set_index("subject")
    assert "sub-a: has no aseg.stats" in account.lines
    assert table.loc["sub-b", "Left-Hippocampus"] == "4333.5"
    assert table.loc["sub-a", "lh_bankssts_thickness"] == "2.657"
    assert float(table.loc["sub-a", "CortexVol"]) == pytest.approx(553998.311189)
    assert float(table.loc["sub-a", "eTIV"]) == pytest.approx(1670487.274486)
    subjects = tmp_path / "subjects.tsv"
    subjects.write_text("participant_id\tdiagnosis\na\tSZ\nb\tHC\n")
    paths = (f"dataset.subjects_dir={shared_data / 'freesurfer_subjects'}", f"dataset.participants={subjects}")
    data = datasets.load(config("freesurfer", *paths, "dataset.features=aparc_thickness", "dataset.scaling=none"))
    assert data.inputs.shape == (2, 68)
    assert np.allclose(data.inputs[0, :2], [2.657, 2.616])


def test_several_tables_are_joined_by_id(config: Make, write_table: Make) -> None:
    aseg = write_table(
        "aseg.tsv", ["Measure:volume", "Left-Hippocampus"], *[[f"sub-{n}", 4000 + n] for n in range(1, 5)]
    )
    rows = [["sub-4", 2.4], ["sub-02", 2.2], ["1", 2.1], ["sub-9", 2.9]]
    cortex = write_table("lh.tsv", ["lh.aparc.thickness", "lh_insula_thickness"], *rows)
    subjects = write_table(
        "subjects.tsv", ["participant_id", "diagnosis"], *[[n, "SZ" if n % 2 else "HC"] for n in range(1, 5)]
    )
    paths = (f"dataset.table=[{aseg},{cortex}]", f"dataset.participants={subjects}")
    data = datasets.load(config("freesurfer", *paths, "dataset.features=all", "dataset.scaling=none"))
    assert np.allclose(data.inputs, [[4001, 2.1], [4002, 2.2], [4004, 2.4]])
    lines = "\n".join(data.account)
    assert "lh.tsv: no row, or several, for sub-3" in lines
    assert "left out: 3: no value of lh_insula_thickness" in lines
    assert "left out: sub-9: is in lh.tsv alone" in lines
    assert "the features mix measures of 2 kinds: thickness (mm); volume of a structure (mm³)" in lines


def test_kinds_of_measures_are_recognised() -> None:
    assert kind_of("lh_insula_thickness") == "thickness (mm)"
    assert kind_of("Right-Thalamus") == kind_of("Right-Thalamus-Proper") == "volume of a structure (mm³)"
    assert kind_of("BrainSegVol-to-eTIV") == "ratio to head size"
    assert kind_of("lhSurfaceHoles") == "holes in the surface (count)"
    assert kind_of("avg_en") == "unknown"
    sizes = {name.split("_")[0]: len(columns) for name, columns in CORTEX_FEATURES.items()}
    assert sizes == {"aparc": 68, "dkt": 62, "destrieux": 148}
