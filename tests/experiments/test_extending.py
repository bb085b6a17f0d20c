"""What a user adds without editing the package: data, networks, optimizers, losses, statistics, experiments."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autospec import open_spectra
from autospec.experiments.datasets import custom
from autospec.experiments.report.methods import methods_paragraph
from autospec.spectra.registered import REGISTERED

DATA = ["dataset=custom", "dataset.name=mine", "dataset._target_=my_parts.load", "dataset.target=side",
        "dataset.group_by=[group]", "width=4", "epochs=3"]  # fmt: skip


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder of the user's, with a module of their own, that the command is typed in."""
    shutil.copy(Path(__file__).parent / "my_parts.py", tmp_path / "my_parts.py")
    monkeypatch.chdir(tmp_path)
    before = dict(REGISTERED)
    yield tmp_path
    REGISTERED.clear()
    REGISTERED.update(before)
    forget()


def forget():
    """As in a new process."""
    sys.modules.pop("my_parts", None)
    custom._made_once.cache_clear()


def only_run(folder: Path) -> Path:
    (made,) = (folder / "outputs" / "runs").iterdir()
    return made


def test_data_of_ones_own(outside, run):
    assert run(*DATA, "task=classification", "dataset.holdout=0.2", "dataset.scaling=feature") == ""
    made = only_run(outside)
    assert made.name.startswith("mine-mlp-classification-relu-w4-")
    spectra = open_spectra(made / "spectra.h5")
    assert spectra.group_names == ["all", "old", "young"]
    assert spectra.sizes["all"] == 32
    assert spectra.simulated
    assert spectra.attributes["source"] == "made up"


def test_groups_of_several_columns_are_crossed_and_have_margins(outside, run):
    assert run(*DATA, "dataset.group_by=[group,side]") == ""
    names = open_spectra(only_run(outside) / "spectra.h5").group_names
    assert names == ["all", "old/left", "old/right", "young/left", "young/right", "old", "young", "left", "right"]


def test_other_data_are_another_run_though_the_command_is_the_same(outside, run):
    assert run(*DATA) == ""
    first = only_run(outside)
    text = (outside / "my_parts.py").read_text()
    (outside / "my_parts.py").write_text(text.replace("+= 2", "+= 2.5"))
    forget()
    assert run(*DATA) == ""
    assert len(list((outside / "outputs" / "runs").iterdir())) == 2
    assert first.exists()


def test_a_network_a_nonlinearity_a_loss_an_optimizer_and_a_schedule_of_ones_own(outside, run):
    parts = [
        "architecture=custom", "+network._target_=my_parts.build", "+network.bias=false",
        "activation=custom", "+nonlinearity._target_=my_parts.Doubled",
        "+loss._target_=my_parts.huber", "+loss.delta=0.5",
        "optimizer._target_=torch.optim.SGD", "+optimizer.momentum=0.9", "learning_rate=0.1",
        "+schedule._target_=torch.optim.lr_scheduler.StepLR", "+schedule.step_size=1", "+schedule.gamma=0.5",
    ]  # fmt: skip
    assert run(*DATA, *parts) == ""
    made = only_run(outside)
    assert made.name.startswith("mine-build-autoencoding-doubled-w4-")
    curve = open_spectra(made / "spectra.h5").training["training_loss"].to_numpy()
    assert curve == pytest.approx(_by_hand(), rel=1e-5)
    text = methods_paragraph(made)
    assert "build [bias False] (width 4, depth 1, Doubled)" in text
    assert "(loss huber [delta 0.5])" in text
    assert "SGD [momentum 0.9] (learning rate 0.1 with schedule StepLR [step_size 1, gamma 0.5]" in text


def _by_hand() -> list[float]:
    """The same training, written out."""
    import my_parts

    inputs = torch.tensor(np.asarray(my_parts.load()["inputs"], dtype=np.float32))
    torch.manual_seed(314159)
    model = my_parts.build((6,), None, 4, 1, my_parts.Doubled, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5**epoch
        loss = my_parts.huber(model(inputs), inputs, None, delta=0.5).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_statistic_of_ones_own_in_the_grid(outside, run):
    assert run(*DATA, "extensions=[my_parts]", "introspection.statistics=[gradient,trace]") == ""
    layer = open_spectra(only_run(outside) / "spectra.h5")["head"]
    assert layer["trace"].dims == ("epoch", "group")
    assert (layer["trace"].values > 0).all()


def test_an_experiment_of_ones_own_in_a_folder_of_ones_own(outside, run):
    folder = outside / "my_conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /dataset: sinusoid\n  - override /architecture: lstm\n"
        "width: 3\nepochs: 2\ndataset: {per_class: 5, time_points: 16}\n"
    )
    assert run("--config-dir", str(outside / "my_conf"), "experiment=mine") == ""
    assert only_run(outside).name.startswith("sinusoid-lstm-autoencoding-relu-w3-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer._target_=torch.optim.Sgd"], "did you mean torch.optim.SGD?"),
        (["+optimizer.momentun=1"], "optimizer._target_=torch.optim.Adam: TypeError: "),
        (["+optimizer.lr=1"], "optimizer.lr: is given by the experiment itself; leave it out"),
        (["optimizer._target_=torch.optim.LBFGS"], "torch.optim.LBFGS: runs several backward passes a step"),
        (["optimizer._target_=my_parts.mean_loss"], "optimizer._target_=my_parts.mean_loss: TypeError"),
        (["optimizer=null"], "optimizer"),
        (["+schedule.gamma=1"], "schedule: has no _target_; schedule._target_=package.name says what it is"),
        (["+schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"], "ReduceLROnPlateau needs the loss to step"),
        (["architecture=custom"], "architecture=custom: +network._target_=package.name says which"),
        (
            ["+network._target_=my_parts.build"],
            "network: acts with architecture=custom alone, and this is architecture=mlp",
        ),
        (["activation=custom"], "activation=custom: +nonlinearity._target_=package.name says which"),
        (["architecture=custom", "+network._target_=my_parts.load"], "network._target_=my_parts.load: TypeError"),
        (["+loss._target_=my_parts.mean_loss"], "loss._target_ returned (); one loss for each of the 40 samples"),
        (["extensions=[my_part]"], "extensions=[my_part]: ModuleNotFoundError: No module named 'my_part'"),
        (["introspection.statistics=[trace]"], "unknown trace; allowed are gradient"),
        (["dataset._target_=my_parts.build"], "dataset._target_=my_parts.build: TypeError"),
        (["dataset._target_=my_parts.Doubled"], "must return a mapping with 'inputs' (n, ...) and 'columns'"),
        (["dataset.target=age"], "dataset.target=age: mine has the columns group, side"),
        (["dataset.name=???"], "dataset.name: has no value; dataset.name=... gives it one"),
        (["dataset.path=here"], "dataset.path=here: give it to the function, +dataset.options.path=..."),
        (["dataset.name=my-data"], "dataset.name=my-data: letters, digits and underscores, since it names runs"),
        (["dataset.scaling=unit"], "dataset.scaling=unit: unknown; allowed here are none, feature"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(outside, run, arguments, message):
    said = run(*DATA, *arguments)
    assert message in said
    assert len(said.splitlines()) <= 2
    assert not (outside / "outputs" / "runs").exists() or "loss._target_" in said
