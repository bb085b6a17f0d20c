"""A run over several processes: the same run, in the same folder, with the same numbers within rounding."""

import json

import h5py
import pytest
from ranks import assert_same_file

RUN = [
    "figure=fig4", "panel=A",
    "dataset.people.HC.men=8", "dataset.people.HC.women=6", "dataset.people.SZ.men=6", "dataset.people.SZ.women=5",
    "epochs=4", "width=4", "batch_size=7",
    "dataset.holdout=0.2", "introspection.permutations=19", "introspection.permutation_epochs=2",
    "introspection.statistics=[gradient,activation,adjoint]", "introspection.floor=formula",
]  # fmt: skip


def _folder(outputs):
    (folder,) = (outputs / "runs").iterdir()
    return folder


@pytest.mark.slow
def test_two_processes_make_the_run_of_one_and_go_on_with_it(run, tmp_path, monkeypatch):
    assert run(*RUN) == ""
    (tmp_path / "outputs").rename(tmp_path / "alone")
    alone = _folder(tmp_path / "alone")
    assert "introspection.engine" not in run(*RUN, "processes=2")
    folder = _folder(tmp_path / "outputs")
    assert folder.name == alone.name
    assert json.loads((folder / "provenance.json").read_text())["processes"] == 2
    assert json.loads((alone / "provenance.json").read_text())["processes"] == 1
    assert_same_file(folder / "spectra.h5", alone / "spectra.h5", tolerance=2e-4)
    with h5py.File(folder / "spectra.h5") as file:
        assert file.attrs["processes"] == 2
        assert file.attrs["complete"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["processes=0"], "processes=0: must be 1 or more"),
        (["processes=2", "introspection.engine=fast"], "processes=2: engine=fast is for one process; allowed is hooks"),
        (["processes=3", "batch_size=2"], "processes=3: more than batch_size=2 samples; each needs one"),
    ],
)
def test_what_processes_cannot_be_is_said(arguments, message, run):
    assert message in run(*arguments)
