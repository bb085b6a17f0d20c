"""What a layer's statistics say when they are asked for what is not there."""

import pickle

import numpy as np
import pytest
from small_runs import record

from autospec import AutoSpecError
from autospec.store.layer_spectra import LayerArray, LayerSpectra


@pytest.fixture(scope="module")
def layer():
    return record(statistics=("gradient", "rank")).spectra["0"]


NOT_RECORDED = "was not recorded in this layer, which has gradient, rank; the recorder takes it with statistics="


@pytest.mark.parametrize("name", ["activation", "adjoint", "tied_gradient", "subspace_groups"])
def test_a_statistic_that_was_not_recorded_says_which_were(layer, name):
    with pytest.raises(AutoSpecError, match=NOT_RECORDED) as by_attribute:
        getattr(layer, name)
    assert f"{name} was not recorded" in str(by_attribute.value)
    assert "\n" not in str(by_attribute.value)
    with pytest.raises(AutoSpecError, match=NOT_RECORDED):
        layer[name]
    assert not hasattr(layer, name)
    assert name not in layer


def test_other_names_are_xarrays_business(layer):
    with pytest.raises(AttributeError, match="nothing"):
        _ = layer.nothing
    with pytest.raises(KeyError, match="nothing"):
        layer["nothing"]


@pytest.mark.parametrize("group", ["women", ["SZ", "women"]])
def test_an_unknown_group_says_which_there_are(layer, group):
    for array in (layer, layer.gradient, layer["gradient"], layer.gradient * 2, layer.gradient.isel(epoch=0)):
        with pytest.raises(AutoSpecError, match="there is no group 'women'; there are all, SZ, HC"):
            array.sel(group=group)
    with pytest.raises(AutoSpecError, match="there is no group 'women'"):
        layer.cosine.sel({"group": "SZ", "other_group": "women"})


def test_the_rest_is_as_xarrays_own(layer):
    assert layer.gradient.sel(group="SZ", index=1).dims == ("epoch",)
    assert layer.sel(group=["SZ", "HC"]).sizes["group"] == 2
    assert layer.gradient.sel(group=slice("SZ", "HC")).sizes["group"] == 2
    assert float(layer.gradient.sel(epoch=1.2, method="nearest").epoch) == 1
    assert isinstance(layer.isel(epoch=0), LayerSpectra)
    assert isinstance(layer.gradient + 1, LayerArray)
    again = pickle.loads(pickle.dumps(layer))  # noqa: S301
    np.testing.assert_array_equal(again.gradient, layer.gradient)
