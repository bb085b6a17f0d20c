"""The repetition time: sidecar before header, BIDS inheritance, units, and what no program should believe."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from autospec.errors import AutoSpecError
from autospec.neuroimaging import repetition_time_s


def scan(path=None, step=2.0, unit="sec"):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2, 3), dtype=np.float32), np.eye(4))
    image.header.set_zooms((1, 1, 1, step))
    image.header.set_xyzt_units("mm", unit)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(image, path)
    return image


@pytest.fixture
def bids(tmp_path):
    """A BIDS dataset of one scan whose header says 2 s; a function writes JSON files beside and above it."""
    (tmp_path / "dataset_description.json").write_text("{}")
    path = tmp_path / "sub-01" / "func" / "sub-01_task-rest_space-MNI_desc-preproc_bold.nii.gz"
    scan(path)

    def write(name, time_s):
        (tmp_path / name).write_text(json.dumps({} if time_s is None else {"RepetitionTime": time_s}))

    return path, write


OWN = "sub-01/func/sub-01_task-rest_space-MNI_desc-preproc_bold.json"


@pytest.mark.parametrize(
    ("step", "unit", "tr_s"),
    [(2.0, "sec", 2.0), (720.0, "msec", 0.72), (8e5, "usec", 0.8), (0.72, "sec", 0.72), (1000.0, "msec", 1.0)],
)
def test_the_header_in_its_unit(step, unit, tr_s):
    assert repetition_time_s(scan(step=step, unit=unit)) == pytest.approx(tr_s, abs=1e-12)


def test_a_header_without_unit_is_taken_as_seconds_and_said(caplog):
    assert repetition_time_s(scan(step=2.5, unit="unknown")) == 2.5
    assert "no unit of time" in caplog.text


@pytest.mark.parametrize(
    ("step", "unit"), [(1.0, "unknown"), (1.0, "sec"), (0.0, "unknown"), (0.0, "sec"), (3.0, "hz")]
)
def test_a_header_that_does_not_know(step, unit):
    with pytest.raises(
        AutoSpecError, match="header of the scan in memory: the repetition time is not known.*give tr_s"
    ):
        repetition_time_s(scan(step=step, unit=unit))


@pytest.mark.parametrize(("step", "unit"), [(2000.0, "sec"), (2000.0, "unknown"), (2.0, "msec")])
def test_a_header_that_cannot_be_meant(step, unit):
    with pytest.raises(AutoSpecError, match="cannot be meant; give tr_s"):
        repetition_time_s(scan(step=step, unit=unit))


def test_the_sidecar_wins_and_a_difference_is_said(bids, caplog):
    path, write = bids
    write(OWN, 0.8)
    assert repetition_time_s(path) == repetition_time_s(str(path)) == repetition_time_s(nibabel.load(path)) == 0.8
    assert "the sidecar is taken" in caplog.text


def test_a_sidecar_that_agrees_is_not_worth_a_word(bids, caplog):
    path, write = bids
    write(OWN, 2)
    assert repetition_time_s(path) == 2.0
    assert not caplog.text


def test_sidecars_are_inherited_nearest_and_most_specific_first(bids):
    path, write = bids
    write("task-other_bold.json", 9.0)
    write("task-rest_T1w.json", 9.0)
    write("sub-02_bold.json", 9.0)
    assert repetition_time_s(path) == 2.0
    write("bold.json", 3.0)
    assert repetition_time_s(path) == 3.0
    write("task-rest_bold.json", 1.5)
    assert repetition_time_s(path) == 1.5
    write("sub-01/sub-01_bold.json", 1.2)
    assert repetition_time_s(path) == 1.2
    write(OWN, None)
    assert repetition_time_s(path) == 1.2


def test_nothing_is_inherited_from_outside_the_dataset(tmp_path):
    (tmp_path / "task-rest_bold.json").write_text('{"RepetitionTime": 9.0}')
    loose, inside = tmp_path / "loose" / "sub-01_task-rest_bold.nii", tmp_path / "bids" / "sub-01_task-rest_bold.nii"
    scan(loose), scan(inside)
    (tmp_path / "bids" / "participants.tsv").write_text("participant_id\nsub-01\n")
    assert repetition_time_s(loose) == repetition_time_s(inside) == 2.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"RepetitionTime": "2 s"}', "RepetitionTime is '2 s', not a number of seconds"),
        ('{"RepetitionTime": 2000}', "a repetition time of 2000 s cannot be meant"),
        ('{"RepetitionTime": NaN}', "cannot be meant"),
        ("[2.0]", "is a JSON list, not a sidecar"),
        ('{"RepetitionTime": 2', "cannot be read as JSON"),
    ],
)
def test_a_broken_sidecar_is_named(bids, content, message):
    path, write = bids
    write(OWN, None)
    (path.parents[2] / OWN).write_text(content)
    with pytest.raises(AutoSpecError, match=message) as raised:
        repetition_time_s(path)
    assert "bold.json" in str(raised.value)
