import json
from dataclasses import replace

import numpy as np
import pytest

from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.runs.description import write_description
from autospec.experiments.runs.folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "a-run")
    made.path.mkdir()
    return made


DATA = Dataset(
    inputs=np.zeros((2, 1), dtype=np.float32),
    target=np.zeros(2, dtype=np.int64),
    classes=("x",),
    group=np.zeros(2, dtype=np.int64),
    groups=("x",),
    subjects=("s1", "s2"),
    training=np.ones(2, dtype=bool),
    source="a table",
    simulated=False,
)


def test_the_configuration_is_written_and_what_a_killed_launch_left_is_removed(folder):
    (folder.path / ".config.yaml.12345678").write_text("half of it")
    write_description(folder, "epochs: 3\n", DATA)
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml"]
    assert folder.config.read_text() == "epochs: 3\n"


def test_only_a_cohort_has_an_account(folder):
    people = replace(DATA, account=("2 of 3 subjects",), facts={"study": "ours"})
    write_description(folder, "epochs: 3\n", people)
    written = json.loads(folder.cohort.read_text())
    assert written == {"account": ["2 of 3 subjects"], "balance": [], "facts": {"study": "ours"}}
