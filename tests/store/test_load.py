"""A file in memory is the same as one read on demand, and what is left out is left out."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from small_runs import design, record

from autospec import AutoSpecError, open_spectra
from autospec.store import read
from autospec.store.read import Spectra, load_spectra

STATISTICS = ("gradient", "activation", "adjoint", "rank")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("run") / "spectra.h5"
    record(file, epochs=11, statistics=STATISTICS, permutation_design=design([0, 10]), group_sizes=[12, 6, 6])
    return file


def test_what_is_loaded_is_what_is_read(path):
    lazy, loaded = open_spectra(path), load_spectra(path)
    assert loaded.layers == lazy.layers
    for layer in lazy.layers:
        xr.testing.assert_identical(loaded[layer], lazy[layer])
    for statistic in STATISTICS[:3]:
        pd.testing.assert_frame_equal(loaded.to_frame(statistic), lazy.to_frame(statistic))
    xr.testing.assert_identical(loaded.weight, lazy.weight)
    pd.testing.assert_frame_equal(loaded.training, lazy.training)
    pd.testing.assert_frame_equal(loaded.groups, lazy.groups)
    assert loaded.epochs.tolist() == lazy.epochs.tolist() == list(range(11))
    for layer, ratios in lazy.permutations.ratios.items():
        for name, values in ratios.items():
            np.testing.assert_array_equal(loaded.permutations.ratios[layer][name], values)


def test_a_loaded_file_is_opened_once(path, monkeypatch):
    opened = []
    open_file = read.open_checked
    monkeypatch.setattr(read, "open_checked", lambda path: opened.append(path) or open_file(path))
    loaded = load_spectra(path)
    loaded.to_frame("adjoint")
    _ = loaded.groups, loaded.training, loaded.permutations, loaded.members, loaded.scaled("0"), repr(loaded)
    assert opened == [path]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6, 10, 11, 12])
def test_of_many_epochs_evenly_spaced_ones_are_read_and_the_last(path, most):
    loaded = load_spectra(path, most_epochs=most)
    epochs = loaded["0"].epoch.values
    assert (epochs[0], epochs[-1]) == (0, 10)
    assert len(epochs) <= most + 1
    assert len(set(np.diff(epochs)[:-1])) <= 1
    xr.testing.assert_identical(loaded["0"], open_spectra(path)["0"].sel(epoch=epochs))
    assert loaded.to_frame().epoch.unique().tolist() == epochs.tolist()


def test_some_layers_and_statistics(path):
    loaded = load_spectra(path, ["2"], names=("gradient", "floor_gradient"))
    assert loaded.layers == ["2"]
    assert set(loaded["2"].data_vars) == {"gradient", "floor_gradient"}
    with pytest.raises(AutoSpecError, match="has no layer '0'; it has 2"):
        loaded["0"]
    with pytest.raises(AutoSpecError, match="has no layer 'nope'; it has 0, 2"):
        load_spectra(path, ["nope"])


def test_leading_values_of_a_table_are_the_first_rows_of_all(path):
    for statistic in STATISTICS[:3]:
        every, leading = open_spectra(path).to_frame(statistic), open_spectra(path).to_frame(statistic, leading=2)
        expected = every[every["index"] <= 2].reset_index(drop=True)
        pd.testing.assert_frame_equal(leading, expected)


def test_a_description_names_what_there_is_and_what_can_be_asked(path):
    text = str(open_spectra(path))
    for expected in (
        "epochs   11, from 0 to 10; complete",
        "groups   all (12), SZ (6), HC (6)",
        "layers   0   5 × 6",
        '.plot_differences("SZ", "HC")',
        '["0"]',
        ".summary()",
    ):
        assert expected in text


def test_before_the_first_record_there_is_a_description_and_one_line():
    spectra = record(epochs=0).spectra
    assert "none recorded yet" in str(spectra)
    for ask in (Spectra.to_frame, Spectra.summary, Spectra.plot, lambda file: file.scaled("0")):
        with pytest.raises(AutoSpecError, match="in memory: no spectra are recorded yet"):
            ask(spectra)


def test_a_description_of_many_layers_is_short():
    spectra = record(epochs=1).spectra
    spectra.layers = [f"layer.{number}" for number in range(40)]
    spectra.shapes = dict.fromkeys(spectra.layers, (2, 3))
    text = str(spectra)
    assert "layer.19" in text
    assert "layer.20" not in text
    assert "and 20 more" in text


def test_a_partial_read_leaves_permutations_to_those_who_ask(tmp_path):
    record(tmp_path / "s.h5", epochs=2, permutation_design=design((0, 1)))
    whole = load_spectra(tmp_path / "s.h5")
    assert "permutations" in vars(whole)
    part = load_spectra(tmp_path / "s.h5", ["0"], names=("gradient",))
    assert "permutations" not in vars(part)
    assert (part.permutations.ratios["0"]["log_norm"] == whole.permutations.ratios["0"]["log_norm"]).all()
