"""``run.py`` as a user types it: what it makes, and what it says to mistakes."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from references import content

from autospec import open_spectra
from autospec.experiments.runs.folder import RunFolder
from autospec.experiments.runs.status import status

TINY = ["dataset.per_digit=6", "epochs=3", "width=4"]


def _runs(folder: Path) -> list[Path]:
    return sorted((folder / "outputs" / "runs").glob("*"))


MISTAKES = {
    "a misspelled key": (["widht=3"], "unknown key 'widht'; did you mean 'width'?"),
    "a misspelled nested key": (["dataset.digit=[1]"], "unknown key 'dataset.digit'; did you mean 'dataset.digits'?"),
    "an unknown figure": (["figure=fig99"], "figure=fig99: unknown; allowed are fig1"),
    "an unknown data set": (["dataset=cifar"], "dataset=cifar: unknown; allowed are "),
    "a figure by its number": (["figure=1"], "figure=fig1, not figure=1"),
    "a negative width": (["width=-3"], "width=-3: must be 1 or more"),
    "no epochs": (["epochs=0"], "epochs=0: must be 1 or more"),
    "no number": (["width=wide"], "width: Value 'wide' of type 'str' could not be converted to Integer"),
    "an unknown task": (
        ["task=regression"],
        "task: Invalid value 'regression', expected one of [autoencoding, classification]",
    ),
    "an unknown activation": (["activation=gelu"], "expected one of [relu, tanh, sigmoid, custom]"),
    "no seed": (["seed=null"], "seed: field 'seed' is not Optional"),
    "a learning rate of zero": (["learning_rate=0"], "learning_rate=0.0: must be above 0 and finite"),
    "a learning rate without end": (["learning_rate=inf"], "learning_rate=inf: must be above 0 and finite"),
    "a width beyond use": (["width=1000000000"], "width=1000000000: must be at most 1000000"),
    "a number of threads beyond use": (["threads=100000"], "threads=100000: must be at most 1024"),
    "no list": (["introspection.layers=head"], "introspection.layers=head: must be a list, such as [head]"),
    "no list of lists": (["figure.pairs=[SZ,HC]"], "figure.pairs=[SZ,HC]: must be a list"),
    "a mapping for a list": (["dataset.digits={a: 1}"], "dataset.digits={a: 1}: must be a list"),
    "a value for many keys": (["introspection=3"], "give them as introspection.<key>=<value>"),
    "a key left out": (["~width"], "width: has no value; width=... gives it one"),
    "a nested key left out": (["~introspection.every"], "~introspection.every: no key can be left out"),
    "a group left out": (["~dataset"], "dataset: cannot be left out; choose another instead"),
    "a figure that is null": (["figure=null"], "a configuration group needs a name, not a number and not null"),
    "a pair of one": (["figure.pairs=[[SZ]]"], "figure.pairs: ['SZ'] is not a pair of two groups"),
    "differences of one group": (
        ["figure=fig1", "panel=G", "dataset.digits=[1]", "epochs=1"],
        "panels G and H compare two groups, but there is 1 (1)",
    ),
    "differences of a group that is not there": (
        ["figure=fig1", "panel=H", "dataset.digits=[0,1]", "epochs=1"],
        "figure.pairs: '3' is no group of the run; there are 0, 1",
    ),
    "a seed where nothing is simulated": (
        ["dataset.seed=1"],
        "dataset.seed: no key of the data set that is chosen; it is one of sinusoid, freesurfer, cobre",
    ),
    "an empty batch": (["batch_size=0"], "batch_size=0: must be 1 or more, or null"),
    "an unknown statistic": (
        ["introspection.statistics=[gradients]"],
        "unknown gradients; allowed are gradient, activation, adjoint, rank, tied",
    ),
    "no singular value": (["introspection.leading=0"], "introspection.leading=0: must be 1 or more"),
    "an engine for gradients": (
        ["introspection.engine=aliased", "introspection.statistics=[rank]"],
        "engine=aliased knows [gradient] only",
    ),
    "never recording": (["introspection.every=0"], "introspection.every=0: must be 1 or more"),
    "an unknown engine": (
        ["introspection.engine=turbo"],
        "introspection.engine=turbo: allowed are hooks, fast, per_group, passes, fused",
    ),
    "an unknown layer": (["introspection.layers=[decoder.*]", *TINY], "there are hidden.0, head"),
    "a share above one": (["dataset.holdout=1.5"], "dataset.holdout=1.5: must be at least 0 and below 1"),
    "a digit that is none": (["dataset.digits=[0,11]"], "dataset.digits=[0, 11]: must be distinct digits from 0 to 9"),
    "another target": (["dataset.target=colour"], "dataset.target=colour: MNIST has only digit"),
    "another scaling": (["dataset.scaling=zscore"], "dataset.scaling=zscore: MNIST has only unit"),
    "another grouping": (["dataset.group_by=[sex]"], "MNIST has only [digit]"),
    "no images": (["dataset.per_digit=0"], "dataset.per_digit=0: must be 1 or more"),
    "data that are not there": (
        ["dataset.path=/nowhere"],
        "dataset.path=/nowhere: there is no train-images-idx3-ubyte",
    ),
    "an architecture that does not fit": (["architecture=rnn"], "architecture=rnn does not take dataset=mnist"),
    "a sweep without -m": (["panel=A,B"], "panel=A,B: several values are a sweep; add -m"),
    "a launcher without -m": (["hydra/launcher=joblib"], "launchers work in sweeps only; add -m"),
    "pairs of other groups": (
        ["figure=fig7", "panel=A", "dataset.group_by=[sex]"],
        "'SZ/men' is no group; there are men, women (in figures they follow figure.pairs=[[men,women]])",
    ),
    "a pair in front of another group": (
        ["figure=fig4", "panel=G", "introspection.permutations=0", "figure.pairs=[[SZ,XX]]"],
        "figure.pairs: 'XX' is no group of the run; there are HC, SZ",
    ),
    "a misspelled key with a plus": (
        ["+learning_rat=0.5"],
        "+learning_rat=0.5: nothing takes the key 'learning_rat'; did you mean 'learning_rate'?",
    ),
    "a misspelled key with two": (["++introspection.evry=2"], "did you mean 'introspection.every'?"),
    "a key like no other": (["+colour=red"], "nothing takes the key 'colour'; conf/config.yaml lists the keys"),
    "a key that no launcher takes": (
        ["-m", "hydra/launcher=joblib", "+hydra.launcher.n_job=2"],
        "nothing takes the key 'hydra.launcher.n_job'; the files in conf/hydra list the keys of launchers",
    ),
    "a launcher's key without -m": (
        ["hydra.launcher.n_jobs=2"],
        "hydra.launcher.n_jobs=2: launchers work in sweeps only",
    ),
    "a sweeper's key without -m": (["hydra.sweeper.params={width: 8}"], "sweepers work in sweeps only; add -m"),
    "a launcher's key without its launcher": (
        ["-m", "hydra.launcher.n_jobs=2"],
        "hydra.launcher.n_jobs=2: the launcher that makes one run after another takes no keys; add hydra/",
    ),
    "another sweeper": (
        ["-m", "hydra/sweeper=basic"],
        "sweeps are checked by AutoSpec's own sweeper alone; leave it out",
    ),
    "a sweep in parts": (["-m", "hydra.sweeper.max_batch_size=2"], "a sweep is checked as a whole and never split"),
    "a figure without a panel": (
        ["figure=fig1", "width=4"],
        "figure=fig1: one run is a panel of it; add panel=A (to H), or draw all of it with make figures FIGURE=1",
    ),
    "no key at all": (["width"], "cannot read the argument 'width'; write key=value"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_a_short_message_and_leaves_nothing(run, tmp_path, mistake):
    arguments, expected = MISTAKES[mistake]
    message = run(*arguments)
    assert expected in message
    assert len(message.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 3 GB")])
def test_memory_that_runs_out_is_named(run, tmp_path, monkeypatch, error):
    def grown(*_):
        raise error

    monkeypatch.setattr("autospec.experiments.models.build", grown)
    assert run(*TINY).startswith("there is not enough memory for this run: a smaller width")
    assert list(tmp_path.iterdir()) == []


def test_cuda_where_there_is_none(run, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "device=cuda: torch finds no CUDA GPU on this machine" in run("device=cuda", *TINY)
    assert list(tmp_path.iterdir()) == []


def test_every_mistake_of_a_sweep_is_listed_and_nothing_is_launched(run, tmp_path):
    message = run("-m", "width=-1,4", "learning_rate=0.1,-0.1", "epochs=1", "dataset.per_digit=2")
    assert message.splitlines() == [
        "nothing was launched:",
        "  width=-1: must be 1 or more (2 of 4 jobs, the first: width=-1 learning_rate=0.1)",
        "  learning_rate=-0.1: must be above 0 and finite (2 of 4 jobs, the first: width=-1 learning_rate=-0.1)",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_run_leaves_its_spectra_configuration_provenance_and_log(run, tmp_path):
    assert run("figure=fig1", "panel=A", *TINY) == ""
    (folder,) = _runs(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "provenance.json", "run.log", "spectra.h5"]
    assert folder.name.startswith("mnist-mlp-autoencoding-relu-w4-")
    spectra = open_spectra(folder / "spectra.h5")
    assert spectra.complete
    assert not spectra.simulated
    assert spectra.run_id == folder.name
    assert spectra.layers == ["hidden.0", "head"]
    assert spectra.group_names == ["all", "0", "1", "2", "3"]
    assert spectra.groups["size"].tolist() == [24, 6, 6, 6, 6]
    assert spectra["head"].sizes == {"epoch": 3, "group": 5, "index": 4, "other_group": 5}
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["device"] == "cpu"
    assert provenance["sessions"][0]["wall_s"] > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "outputs"]


def test_a_run_of_people_keeps_its_account_and_the_balance_of_its_groups(run, tmp_path):
    options = ("epochs=1", "width=4", "introspection.permutations=0", "dataset.age.shift=2")
    assert run("figure=fig4", "panel=A", *options) == ""
    (folder,) = _runs(tmp_path)
    told = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
    assert "124 subjects; groups: HC 63, SZ 61" in told["account"]
    age = next(one for one in told["balance"] if one["covariate"] == "age")
    assert (age["one"], age["other"], age["large"]) == ("HC", "SZ", True)
    assert -3 < age["standardised"] < -0.25
    assert any(line.startswith("age is not balanced") for line in told["account"])


def test_the_same_run_again_is_complete_and_panels_that_share_it_too(run, tmp_path, caplog):
    assert run("figure=fig1", "panel=A", *TINY) == ""
    (folder,) = _runs(tmp_path)
    before = (folder / "spectra.h5").stat().st_mtime_ns
    with caplog.at_level("INFO"):
        assert run("figure=fig1", "panel=G", *TINY, "threads=2") == ""
    assert _runs(tmp_path) == [folder]
    assert (folder / "spectra.h5").stat().st_mtime_ns == before


def test_two_runs_of_one_configuration_give_the_same_numbers(run, tmp_path):
    for name in ("first", "second"):
        assert run("task=classification", "batch_size=5", *TINY) == ""
        (tmp_path / "outputs").rename(tmp_path / name)
    paths = [next((tmp_path / name / "runs").glob("*")) / "spectra.h5" for name in ("first", "second")]
    assert content(paths[0]) == content(paths[1])


def test_a_sweep_runs_each_distinct_run_once_and_says_what_draws(run, tmp_path, capfd):
    assert run("-m", "figure=fig1", "panel=A,B,G,H", *TINY) == ""
    assert len(_runs(tmp_path)) == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "outputs"]
    assert "`make figures FIGURE=1 ARGS='dataset.per_digit=6 epochs=3 width=4" in capfd.readouterr().err


def test_a_failed_job_leaves_the_others_and_is_listed(run, tmp_path):
    message = run("-m", "learning_rate=1e30,1e-3", *TINY)
    assert message.startswith("1 of 2 runs failed:")
    assert "the loss is" in message
    complete = [open_spectra(folder / "spectra.h5").complete for folder in _runs(tmp_path)]
    assert sorted(complete) == [False, True]


def test_a_loss_that_is_no_number_stops_and_keeps_what_there_is(run, tmp_path):
    message = run("learning_rate=1e30", *TINY)
    assert "stopped, and kept what was recorded" in message
    (folder,) = _runs(tmp_path)
    spectra = open_spectra(folder / "spectra.h5")
    assert not spectra.complete
    assert spectra["head"].sizes["epoch"] >= 1
    assert "Traceback" in (folder / "run.log").read_text()


def test_damaged_spectra_of_a_complete_run_are_set_aside_where_that_is_asked_for(run, tmp_path):
    assert run(*TINY) == ""
    (folder,) = _runs(tmp_path)
    whole = (folder / "spectra.h5").read_bytes()
    (folder / "spectra.h5").write_bytes(whole[: len(whole) // 2])
    message = run(*TINY)
    assert message.endswith("the run was complete: overwrite=true sets the file aside and makes it anew")
    assert message.startswith(f"{folder}/spectra.h5 is")
    assert (folder / "spectra.h5").read_bytes() == whole[: len(whole) // 2]
    assert run(*TINY, "overwrite=true") == ""
    assert (folder / "spectra.damaged.h5").exists()
    assert open_spectra(folder / "spectra.h5").complete


def test_a_complete_run_is_made_anew_where_that_is_asked_for(run, tmp_path):
    assert run(*TINY) == ""
    (folder,) = _runs(tmp_path)
    numbers, before = content(folder / "spectra.h5"), (folder / "spectra.h5").stat().st_mtime_ns
    assert run(*TINY, "overwrite=true") == ""
    assert _runs(tmp_path) == [folder]
    assert (folder / "spectra.h5").stat().st_mtime_ns > before
    assert content(folder / "spectra.h5") == numbers


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_complete_run_whose_file_another_process_holds_stays(run, tmp_path, mode):
    assert run(*TINY) == ""
    (folder,) = _runs(tmp_path)
    code = "import h5py, sys; file = h5py.File(sys.argv[1], sys.argv[2]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(folder / "spectra.h5"), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert run(*TINY) == ""
        assert status(RunFolder(folder)).state == "done"
        assert sorted(path.name for path in folder.glob("spectra*")) == ["spectra.h5"]
        holder.stdin.close()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOLCK, errno.EACCES, errno.EIO])
def test_a_complete_run_whose_file_cannot_be_read_now_stays(run, tmp_path, monkeypatch, number):
    assert run(*TINY) == ""
    (folder,) = _runs(tmp_path)

    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("autospec.store.opening.RETRY_S", 0.01)
    monkeypatch.setattr("autospec.store.opening._Stream", refused)
    message = run(*TINY)
    assert message.startswith(f"{folder}/spectra.h5 cannot be read now ({os.strerror(number)}): ")
    assert len(message.splitlines()) == 1
    assert sorted(path.name for path in folder.glob("spectra*")) == ["spectra.h5"]


def test_a_folder_that_cannot_be_written(run, monkeypatch):
    make = Path.mkdir

    def read_only(self, *arguments, **keywords):
        if "runs" in self.parts:
            raise OSError(30, "Read-only file system")
        make(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert "Read-only file system" in run(*TINY)


def test_a_disk_that_is_full_stops_the_run_and_says_so(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert "spectra.h5: No space left on device" in run(*TINY)
    (folder,) = _runs(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "provenance.json", "run.log"]


def test_an_output_folder_that_is_a_file(run, tmp_path):
    (tmp_path / "outputs").write_text("")
    assert "output_dir: cannot write" in run(*TINY)
