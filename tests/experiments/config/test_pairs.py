from dataclasses import replace
from pathlib import Path

import pytest

from autospec.experiments import datasets
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.config.pairs import group_names
from autospec.experiments.config.schema import MnistConfig

CONF = Path(__file__).resolve().parents[3] / "conf"


@pytest.mark.parametrize(
    "overrides", [["figure=fig3"], ["figure=fig4"], ["figure=fig4", "dataset.group_by=[diagnosis,sex]"]]
)
def test_groups_and_margins_are_named_as_the_data_name_them(overrides):
    config = check_config(compose_config(CONF, overrides)).dataset
    data = datasets.load(config)
    assert set(group_names(config)) == {*data.groups, *data.margins}


def test_digits_are_groups():
    assert group_names(replace(MnistConfig(), digits=[7, 1])) == ["7", "1"]


def test_values_that_the_configuration_does_not_name_are_known_from_data_alone():
    assert group_names(check_config(compose_config(CONF, ["figure=fig4", "dataset.group_by=[site]"])).dataset) is None
