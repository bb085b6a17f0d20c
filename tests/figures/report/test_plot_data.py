import base64

import numpy as np
import pytest
from small_runs import record

from autospec import open_spectra
from autospec.figures.report.plot_data import encode, plot_data


@pytest.fixture(scope="module")
def spectra(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "spectra.h5"
    record(path, epochs=30, width=40)
    return open_spectra(path)


def _decode(text, *shape):
    return np.frombuffer(base64.b64decode(text), dtype="<f4").reshape(shape)


def test_plots_show_scaled_values_above_their_floor(spectra):
    content = plot_data(spectra).content
    assert content["epochs"] == list(range(30))
    assert [(group["name"], group["kind"]) for group in content["groups"]] == [
        ("all", "all"),
        ("SZ", "group"),
        ("HC", "group"),
    ]
    for layer in content["layers"]:
        values = _decode(layer["values"], 3, 30, layer["width"])
        raw, scaled = spectra[layer["name"]], spectra.scaled(layer["name"])
        expected = scaled.where(raw["gradient"] > raw["floor_gradient"]).transpose("group", "epoch", "index").values
        np.testing.assert_allclose(values, expected, rtol=1e-6)
        floor = (raw["floor_gradient"] / spectra.weight).sel(group="all")
        np.testing.assert_allclose(_decode(layer["floor"], 30), floor, rtol=1e-6)
        assert np.isfinite(values).any()
    assert [layer["maps"] for layer in content["layers"]] == ["6 → 40", "40 → 3"]


def test_curves_are_those_of_training(spectra):
    curves = plot_data(spectra).content["curves"]
    assert curves["epochs"] == list(range(30))
    (loss,) = curves["lines"]
    assert loss["name"] == "training loss"
    np.testing.assert_allclose(_decode(loss["values"], 30), spectra.training["training_loss"], rtol=1e-6)


def test_a_long_file_is_thinned_and_says_so(spectra):
    whole = plot_data(spectra)
    assert whole.notes == ()
    thinned = plot_data(spectra, most_values=3 * 6 * 20)
    assert thinned.notes == ("16 of 30 recorded epochs", "the first 1 of 2 layers")
    assert thinned.content["epochs"][-1] == 29
    assert len(thinned.content["layers"]) == 1


def test_wide_layers_and_many_groups_are_cut_and_say_so(tmp_path):
    record(tmp_path / "a.h5", epochs=2, groups=[f"g{number}" for number in range(12)] + ["h", "i", "j", "k", "l"])
    notes = plot_data(open_spectra(tmp_path / "a.h5")).notes
    assert notes == ("the first 16 of 18 groups",)


def test_margins_are_told_apart_from_their_parts(tmp_path):
    record(tmp_path / "a.h5", epochs=1, groups=["a/x", "a/y", "b"], margins={"a": ["a/x", "a/y"]})
    groups = plot_data(open_spectra(tmp_path / "a.h5")).content["groups"]
    assert {group["name"]: group["kind"] for group in groups}["a"] == "margin"
    assert len({group["colour"] for group in groups}) == len(groups) == 5


def test_only_what_the_file_holds_is_called_left_out(tmp_path):
    record(tmp_path / "a.h5", epochs=2, width=40, leading=2)
    data = plot_data(open_spectra(tmp_path / "a.h5"))
    assert data.notes == ()
    assert [layer["width"] for layer in data.content["layers"]] == [2, 2]


def test_numbers_are_little_endian_float32():
    assert base64.b64decode(encode([1.0, np.nan, np.inf]))[:4] == b"\x00\x00\x80\x3f"
