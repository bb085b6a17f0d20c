"""What a configuration may hold; the same messages from the command line are in launch/test_command_line.py."""

from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from autospec.errors import AutoSpecError
from autospec.experiments.config.checks import as_yaml, check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.config.pairs import check_pairs, pairs_in_front
from autospec.experiments.config.schema import DATASET_SCHEMAS, Shows
from autospec.spectra.settings import RecorderSettings

CONF = Path(__file__).resolve().parents[3] / "conf"


@pytest.fixture
def config():
    return check_config(compose_config(CONF, ["dataset=sinusoid", "architecture=rnn"]))


def _mistakes(config) -> list[str]:
    with pytest.raises(AutoSpecError) as mistake:
        check_config(config)
    return str(mistake.value).splitlines()


def test_all_mistakes_are_told_at_once(config):
    config.width, config.seed, config.dataset.seed, config.dataset.holdout = 0, -1, 2**63, 1.0
    config.introspection.every, config.introspection.engine = 0, "turbo"
    config.introspection.floor = "exact"
    config.figure.pairs = [["1", "1"]]
    assert _mistakes(config) == [
        "dataset.holdout=1.0: must be at least 0 and below 1",
        "width=0: must be 1 or more",
        "seed=-1: must be between 0 and 2^63 - 1",
        "introspection.every=0: must be 1 or more",
        "introspection.engine=turbo: allowed are hooks, fast, per_group, passes, fused",
        "introspection.floor=exact: allowed are calibrated, measured, formula",
        f"dataset.seed={2**63}: must be between 0 and 2^63 - 1",
        "figure.pairs: ['1', '1'] is not a pair of two groups",
    ]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 0, "batch_size=0: must be 1 or more, or null"),
        ("checkpoint_s", -1.0, "checkpoint_s=-1.0: must be 0 or more, or null"),
        ("checkpoint_s", float("nan"), "checkpoint_s=nan: must be 0 or more, or null"),
        ("learning_rate", float("nan"), "learning_rate=nan: must be above 0 and finite"),
        ("output_dir", "", "output_dir=: must name a folder"),
        ("dataset.group_by", [], "dataset.group_by=[]: must name at least one column"),
        ("dataset.holdout_seed", -1, "dataset.holdout_seed=-1: must be between 0 and 2^63 - 1"),
        ("figure.tests", "t", "figure.tests=t: allowed are permutation, paper"),
        ("introspection.permutations", -1, "introspection.permutations=-1: must be 0 or more"),
        ("introspection.permutations", 18, "introspection.permutations=18: with fewer than 19 no p can reach 0.05"),
        ("introspection.permutation_epochs", 0, "introspection.permutation_epochs=0: must be 1 or more"),
        ("introspection.permutation_pairs", [["0"]], "introspection.permutation_pairs: ['0'] is not a pair"),
        ("depth", 1001, "depth=1001: must be at most 1000"),
    ],
)
def test_a_mistake_names_the_key_the_value_and_what_is_allowed(config, key, value, message):
    node = config
    for name in key.split(".")[:-1]:
        node = getattr(node, name)
    setattr(node, key.split(".")[-1], value)
    (line,) = _mistakes(config)
    assert line.startswith(message)


def test_the_recorder_and_the_configuration_have_the_same_defaults(config):
    given = asdict(RecorderSettings())
    shared = {entry.name for entry in fields(config.introspection)} & given.keys()
    asked = {"permutations", "permutation_epochs"}
    assert shared == {"statistics", "every", "engine", "floor", "leading", "tolerance", "directions", "bins", *asked}
    assert {name: getattr(type(config.introspection)(), name) for name in shared} == {key: given[key] for key in shared}


@pytest.mark.parametrize("name", DATASET_SCHEMAS)
def test_a_configuration_is_checked_as_it_is_written(name):
    own = ["dataset.name=custom", "dataset._target_=a.b"] if name == "custom" else []
    config = check_config(compose_config(CONF, [f"dataset={name}", "architecture=mlp", *own]))
    again = check_config(OmegaConf.structured(config))
    assert again == config
    assert is_dataclass(again.dataset)
    assert yaml.safe_load(as_yaml(config))["dataset"]["name"] == name


def test_pairs_are_checked_where_something_needs_them(config):
    config.figure.pairs = config.introspection.permutation_pairs = [["0", "9"]]
    groups = ["all", "0", "1"]
    check_pairs(config, groups)
    config.introspection.permutations = 19
    with pytest.raises(AutoSpecError, match=r"introspection.permutation_pairs: '9' is no group; there are 0, 1"):
        check_pairs(config, groups)
    config.panel.shows = Shows.differences
    with pytest.raises(AutoSpecError, match="figure.pairs: '9' is no group of the run; there are 0, 1"):
        check_pairs(config, groups)
    config.figure.pairs = []
    with pytest.raises(AutoSpecError, match=r"there is 1 \(0\)"):
        check_pairs(config, ["all", "0"])


def test_pairs_in_front_are_those_that_are_named_or_the_first_group_and_the_last():
    assert pairs_in_front([["1", "0"]], ["all", "0", "1", "2"]) == (("1", "0"),)
    assert pairs_in_front([], ["all", "0", "1", "2"]) == (("0", "2"),)


def test_a_tolerance_needs_to_know_of_how_many_values(config):
    config.introspection.tolerance = 1e-6
    assert _mistakes(config) == [
        "introspection.tolerance=1e-06: leading must say how many singular values are certified, such as leading=16"
    ]
    config.introspection.leading = 16
    assert check_config(config).introspection.tolerance == 1e-6
