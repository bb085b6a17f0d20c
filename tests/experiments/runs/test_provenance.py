import json

import pytest

from autospec import AutoSpecError
from autospec.experiments.runs import provenance
from autospec.experiments.runs.provenance import Provenance, code_digest, read_provenance


@pytest.fixture
def made():
    return Provenance("run", "data", "cpu", 1)


def test_it_holds_what_a_run_was_made_with(made, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    made.begin("python run.py width=8", 5, [])
    made.reached(9, None)
    made.write(tmp_path / "provenance.json")
    found = json.loads((tmp_path / "provenance.json").read_text())
    assert set(found["packages"]) >= {"torch", "numpy", "h5py", "scipy", "hydra-core"}
    assert {"git_commit", "code", "device", "gpu", "precision", "threads", "python", "data_fingerprint"} <= set(found)
    (session,) = found["sessions"]
    assert session["command"] == "python run.py width=8"
    assert (session["from_epoch"], session["to_epoch"], session["slurm_job"]) == (5, 9, "12_3")
    assert session["wall_s"] >= 0
    assert session["peak_memory_mb"] > 1
    assert read_provenance(tmp_path / "provenance.json") == made


CHANGES = {
    "device": ("cuda", "device was cpu and is cuda"),
    "gpu": ("NVIDIA H200", "gpu was none and is NVIDIA H200"),
    "threads": (2, "threads was 1 and is 2"),
    "precision": ("bfloat16", "precision was float32 and is bfloat16"),
    "code": ("another", "code was {} and is another"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_numbers_is_named(made, name):
    value, expected = CHANGES[name]
    now = Provenance("run", "data", "cpu", 1)
    setattr(now, name, value)
    assert now.differences(made) == [expected.format(made.code)]


def test_only_the_package_that_changed_is_named(made):
    now = Provenance("run", "data", "cpu", 1, packages=made.packages | {"torch": "9.9", "new": "1.0"})
    assert now.differences(made) == ["new was absent and is 1.0", f"torch was {made.packages['torch']} and is 9.9"]


def test_what_changes_no_numbers_is_not_named(made):
    now = Provenance("run", "data", "cpu", 1, python="3.99", git_commit="another")
    assert now.differences(made) == []


def test_the_digest_of_the_code_sees_an_edit_but_not_one_of_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "SOURCE", tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "model.py").write_text("width = 1")
    digests = []
    for edited in ("model.py", "model.py", "figures/style.py"):
        (tmp_path / edited).write_text(f"edited = {len(digests)}")
        code_digest.cache_clear()
        digests.append(code_digest())
    code_digest.cache_clear()
    assert digests[0] != digests[1] == digests[2]


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(AutoSpecError, match=r"provenance\.json is missing"):
        read_provenance(tmp_path / "provenance.json")
    for damaged in ("{", "[1]", '{"run_id": "run", "colour": "red"}'):
        (tmp_path / "provenance.json").write_text(damaged)
        with pytest.raises(AutoSpecError, match=r"provenance\.json is damaged"):
            read_provenance(tmp_path / "provenance.json")
