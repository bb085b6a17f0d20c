"""Tables and stats folders as other programs and other people leave them: read, mended and said, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.datasets.dataset import Dataset

Make = Callable[..., Any]

VALUES = {"Left-Hippocampus": (4000, 4100, 3900, 4300), "Right-Hippocampus": (4100, 4300, 3950, 4200),
          "EstimatedTotalIntraCranialVol": (1.5e6, 1.6e6, 1.4e6, 1.55e6)}  # fmt: skip
IDS = ("sub-001", "sub-002", "sub-003", "sub-004")
SUBJECTS = "participant_id\tdiagnosis\tsex\n" + "".join(
    f"{subject}\t{'SZ' if place % 2 else 'HC'}\t{'M' if place < 2 else 'F'}\n" for place, subject in enumerate(IDS)
)


def table(ids: tuple[str, ...] = IDS, values: dict[str, Any] = VALUES, corner: str = "Measure:volume") -> list[list]:
    """Rows of a table by asegstats2table."""
    rows = [[subject, *(column[place] for column in values.values())] for place, subject in enumerate(ids)]
    return [[corner, *values], *rows]


@pytest.fixture
def load(config: Make, tmp_path: Path) -> Callable[..., Dataset]:
    """A function (rows, or the text of a table, …) → the data set of it."""

    def make(*tables: list[list] | str, overrides: tuple[str, ...] = (), subjects: str = SUBJECTS) -> Dataset:
        (tmp_path / "participants.tsv").write_text(subjects)
        for place, content in enumerate(tables):
            text = content if isinstance(content, str) else written(content, "\t")
            (tmp_path / f"table{place}.tsv").write_text(text)
        names = ",".join(str(tmp_path / f"table{place}.tsv") for place in range(len(tables)))
        paths = (f"dataset.table=[{names}]", f"dataset.participants={tmp_path / 'participants.tsv'}")
        return datasets.load(config("freesurfer", *paths, "dataset.scaling=none", *overrides))

    return make


def written(rows: list[list], separator: str) -> str:
    """A table as text."""
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


EXPECTED = [[4000, 4100], [4100, 4300], [3900, 3950], [4300, 4200]]


@pytest.mark.parametrize("separator", ["\t", ",", ";", " ", "   "])
def test_any_separator_of_asegstats2table_is_read(load: Callable[..., Dataset], separator: str) -> None:
    assert load(written(table(), separator)).inputs.tolist() == EXPECTED


def test_a_transposed_table_is_read(load: Callable[..., Dataset]) -> None:
    data = load([list(row) for row in zip(*table(), strict=True)])
    assert data.inputs.tolist() == EXPECTED
    assert "table0.tsv: subjects are its columns (--transpose), and are read so" in data.account


def test_a_decimal_comma_is_read_where_semicolons_separate(load: Callable[..., Dataset]) -> None:
    text = written(table(), ";").replace("4000;", "4000,5;")
    assert load(text).inputs[0].tolist() == [4000.5, 4100]


@pytest.mark.parametrize("form", ["{}/", "{}/stats/aseg.stats", "/data/study/{}", "{}.long.{}_base", "{}_ses-01"])
def test_ids_as_programs_write_them_join(load: Callable[..., Dataset], form: str) -> None:
    data = load(table(tuple(form.format(subject, subject) for subject in IDS)))
    assert data.subjects == IDS
    assert data.inputs.tolist() == EXPECTED


def test_other_ids_join_by_a_pattern(load: Callable[..., Dataset]) -> None:
    ids = tuple(f"NIMH_{subject[4:]}_T1w_v2" for subject in IDS)
    with pytest.raises(AutoSpecError, match="an id pattern can say which part is the id"):
        load(table(ids))
    assert load(table(ids), overrides=(r"dataset.id_pattern='NIMH_(\d+)_.*'",)).subjects == IDS
    for pattern, message in (("NIMH", "needs a group in parentheses"), ("(", "is no regular expression")):
        with pytest.raises(AutoSpecError, match=message):
            load(table(ids), overrides=(f"dataset.id_pattern='{pattern}'",))


@pytest.mark.parametrize("theirs", ["MCIC_{}", "HC{}"])
def test_other_letters_are_other_people(load: Callable[..., Dataset], theirs: str) -> None:
    subjects = SUBJECTS.replace("sub-", "COBRE_")
    with pytest.raises(AutoSpecError, match=r"no id of table0.tsv .* is in the phenotype table \(COBRE_001"):
        load(table(tuple(theirs.format(subject[4:]) for subject in IDS)), subjects=subjects)


def test_the_same_letters_written_otherwise_are_the_same_people(load: Callable[..., Dataset]) -> None:
    subjects = SUBJECTS.replace("sub-", "COBRE_")
    data = load(table(tuple(f"cobre{subject[4:]}" for subject in IDS)), subjects=subjects)
    assert data.inputs.tolist() == EXPECTED


def test_a_column_twice_counts_once_where_it_is_the_same(load: Callable[..., Dataset]) -> None:
    rows = [[*row, row[-1]] for row in table()]
    assert load(rows).inputs.tolist() == EXPECTED
    rows[2][-1] = 17
    with pytest.raises(AutoSpecError, match="'EstimatedTotalIntraCranialVol' occurs 2 times with different values"):
        load(rows)


def test_names_that_r_has_changed_are_known(load: Callable[..., Dataset]) -> None:
    values = {"Left.Hippocampus": VALUES["Left-Hippocampus"], "X3rd.Ventricle": (900, 1100, 1000, 950)}
    data = load(table(values=values, corner="Measure.volume"))
    assert data.inputs.tolist() == [[900, 4000], [1100, 4100], [1000, 3900], [950, 4300]]
    assert any("Left.Hippocampus is Left-Hippocampus, X3rd.Ventricle is 3rd-Ventricle" in line for line in data.account)


def test_head_size_of_version_8_is_known(load: Callable[..., Dataset]) -> None:
    values = {"Left-Hippocampus": VALUES["Left-Hippocampus"], "sTIV": VALUES["EstimatedTotalIntraCranialVol"]}
    assert any(line.startswith("head_size: HC") for line in load(table(values=values)).account)


def test_intensities_are_not_taken_for_volumes(load: Callable[..., Dataset]) -> None:
    rows = table(corner="Measure:mean")
    with pytest.raises(AutoSpecError, match="the table has none of them, but Left-Hippocampus_mean"):
        load(rows)
    data = load(table(), rows, overrides=("dataset.features=all",))
    assert data.inputs.shape == (4, 5)
    assert "table1.tsv: holds mean of structures (Measure:mean), not volumes" in data.account


def test_shares_of_head_size_are_not_taken_for_volumes(load: Callable[..., Dataset]) -> None:
    values = {"Left-Hippocampus": (0.0027, 0.0026, 0.0028, 0.0029), "EstimatedTotalIntraCranialVol": (1, 1, 1, 1)}
    with pytest.raises(AutoSpecError, match="the table has none of them, but Left-Hippocampus_per_eTIV"):
        load(table(values=values))
    data = load(table(values=values), overrides=("dataset.features=[Left-Hippocampus_per_eTIV]",))
    assert not any(line.startswith("head_size") for line in data.account)


def test_a_second_table_of_the_same_columns_is_not_dropped_in_silence(load: Callable[..., Dataset]) -> None:
    other = {name: tuple(value + 1 for value in column) for name, column in VALUES.items()}
    with pytest.raises(AutoSpecError, match=r"table1.tsv: column 'Left-Hippocampus' of sub-001 is 4001, and 4000"):
        load(table(), table(values=other))
    assert load(table(), table()).inputs.tolist() == EXPECTED


@pytest.mark.parametrize("value", [0, 1e9, 41])
def test_a_value_that_no_brain_has_leaves_the_subject_out(load: Callable[..., Dataset], value: float) -> None:
    rows = table()
    rows[2][1] = value
    data = load(rows)
    assert data.subjects == ("sub-001", "sub-003", "sub-004")
    assert any(line.startswith("left out: sub-002: Left-Hippocampus is") for line in data.account)


def test_a_subject_in_another_unit_is_left_out_by_name(load: Callable[..., Dataset]) -> None:
    rows = table()
    rows[2][1:] = [value / 1000 for value in rows[2][1:]]
    data = load(rows)
    assert any("left out: sub-002: volumes are 0.001" in line and "cm³ among mm³" in line for line in data.account)
    everybody = {name: tuple(value / 1000 for value in column) for name, column in VALUES.items()}
    assert len(load(table(values=everybody)).subjects) == 4


def test_a_table_of_nipoppy_is_read_by_session(load: Callable[..., Dataset]) -> None:
    rows = [["participant_id", "session_id", *row[1:]] if place == 0 else [row[0][4:], "ses-01", *row[1:]]
            for place, row in enumerate(table())]  # fmt: skip
    data = load(rows)
    assert data.subjects == IDS
    assert data.inputs.tolist() == EXPECTED


def test_destrieux_thickness_is_a_named_list_and_can_be_typed(load: Callable[..., Dataset]) -> None:
    values = {"lh_G&S_frontomargin_thickness": (2.5, 2.6, 2.4, 2.3), "rh_S_calcarine_thickness": (1.9, 1.8, 1.7, 2.0)}
    data = load(table(values=values), overrides=("dataset.features=destrieux_thickness",))
    assert data.inputs.shape == (4, 2)
    typed = load(table(values=values), overrides=("dataset.features=[lh_G_and_S_frontomargin_thickness]",))
    assert typed.inputs[:, 0].tolist() == pytest.approx([2.5, 2.6, 2.4, 2.3])


FASTSURFER = """# Title Segmentation Statistics
#
# generating_program segstats.py
# cmdline segstats.py --segfile mri/aparc.DKTatlas+aseg.deep.mgz
# Measure Mask, MaskVol, Mask Volume, 1747144.000000, mm^3
# Measure BrainSeg, BrainSegVol, Brain Segmentation Volume, 1385005.314630, mm^3
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax normRange
  1    10      8181   {thalamus}  Left-Thalamus   83.3   10.4    27.0   114.0    87.0
  2    17      4357   {hippocampus}  Left-Hippocampus    65.6     8.2     0.0    88.0    88.0
  3  1002      1000   1500.0  ctx-lh-caudalanteriorcingulate    65.6     8.2     0.0    88.0    88.0
"""


@pytest.mark.parametrize("name", ["aseg+DKT.stats", "aseg+DKT.VINN.stats", "aseg.VINN.stats"])
def test_stats_of_fastsurfer_are_read(config: Make, tmp_path: Path, name: str) -> None:
    for place, subject in enumerate(IDS):
        stats = tmp_path / "subjects" / subject / "stats"
        stats.mkdir(parents=True)
        (stats / name).write_text(FASTSURFER.format(thalamus=7000 + place, hippocampus=4000 + place))
    (tmp_path / "participants.tsv").write_text(SUBJECTS)
    paths = (f"dataset.subjects_dir={tmp_path / 'subjects'}", f"dataset.participants={tmp_path / 'participants.tsv'}")
    data = datasets.load(config("freesurfer", *paths, "dataset.scaling=none"))
    assert data.inputs.tolist() == [[7000 + place, 4000 + place] for place in range(4)]
    assert any("FreeSurfer FastSurfer (sub-001" in line for line in data.account)


def test_the_account_is_told_with_the_error(config: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder in which one of two subjects lacks ``aseg.stats`` ends in an error that the account explains."""
    for subject in IDS[:2]:
        (tmp_path / "subjects" / subject / "stats").mkdir(parents=True)
    (tmp_path / "subjects" / IDS[0] / "stats" / "aseg.stats").write_text(FASTSURFER.format(thalamus=7, hippocampus=4))
    (tmp_path / "participants.tsv").write_text(SUBJECTS)
    paths = (f"dataset.subjects_dir={tmp_path / 'subjects'}", f"dataset.participants={tmp_path / 'participants.tsv'}")
    with caplog.at_level("INFO"), pytest.raises(AutoSpecError):
        datasets.load(config("freesurfer", *paths))
    assert any("sub-002: has no aseg.stats" in record.getMessage() for record in caplog.records)
