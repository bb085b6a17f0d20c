import copy

import pytest

from autospec.experiments.config.run_id import run_id
from autospec.experiments.config.schema import (
    Activation,
    Architecture,
    Device,
    ExperimentConfig,
    FreesurferConfig,
    MnistConfig,
    Shows,
    Task,
)


@pytest.fixture
def config():
    return ExperimentConfig(
        dataset=MnistConfig(),
        architecture=Architecture.mlp,
        task=Task.autoencoding,
        activation=Activation.relu,
        width=32,
        depth=1,
        epochs=200,
        learning_rate=1e-3,
        seed=314159,
    )


def test_a_name_is_readable_and_stays_the_same(config):
    # pinned: a change here orphans every run that users have; raise NUMBERS_VERSION only when numbers change
    assert run_id(config, "data") == "mnist-mlp-autoencoding-relu-w32-df25fbb017"


CHANGES = {
    "width": 8,
    "depth": 2,
    "epochs": 10,
    "learning_rate": 1e-2,
    "batch_size": 16,
    "seed": 1,
    "task": Task.classification,
    "activation": Activation.tanh,
    "dataset.digits": [0, 1],
    "dataset.holdout": 0.2,
    "dataset.holdout_seed": 1,
    "dataset.per_digit": 5,
    "introspection.every": 2,
    "introspection.engine": "aliased",
    "introspection.floor": "measured",
    "introspection.leading": 3,
    "introspection.tolerance": 1e-6,
    "introspection.directions": 2,
    "introspection.bins": 3,
    "introspection.statistics": ["adjoint"],
    "introspection.layers": ["head"],
}


def _changed(config, key, value):
    changed = copy.deepcopy(config)
    *path, last = key.split(".")
    node = changed
    for name in path:
        node = getattr(node, name)
    setattr(node, last, value)
    return changed


def test_whatever_decides_the_numbers_makes_another_name(config):
    names = [run_id(config, "data"), run_id(config, "other data")]
    names += [run_id(_changed(config, key, value), "data") for key, value in CHANGES.items()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("device", Device.cpu),
        ("threads", 2),
        ("output_dir", "elsewhere"),
        ("figure.number", 1),
        ("panel.shows", Shows.differences),
        ("supplement", True),
        ("accept_changes", True),
        ("dataset.path", "elsewhere"),
    ],
)
def test_where_and_how_a_run_is_made_does_not(config, key, value):
    assert run_id(_changed(config, key, value), "data") == run_id(config, "data")


def test_how_a_cohort_would_be_simulated_decides_nothing_where_a_real_one_is_read(config):
    simulated = _changed(config, "dataset", FreesurferConfig(age_effects={}, sex_effects={}, diagnosis_effects={}))
    real = _changed(simulated, "dataset.table", "table.tsv")
    for key, value in (("dataset.effect", 0.0), ("dataset.seed", 1)):
        assert run_id(_changed(simulated, key, value), "data") != run_id(simulated, "data")
        assert run_id(_changed(real, key, value), "data") == run_id(real, "data")
