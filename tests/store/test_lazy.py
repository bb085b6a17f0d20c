"""Statistics that are read when they are used: the same values, never those of a file that was written anew."""

import numpy as np
import pytest
import xarray as xr
from small_runs import record

from autospec import open_spectra
from autospec.errors import AutoSpecError
from autospec.store import lazy
from autospec.store.blocks import epoch_blocks


@pytest.fixture
def spectra(tmp_path):
    record(tmp_path / "a.h5", epochs=7, statistics=("gradient", "activation", "rank"))
    return open_spectra(tmp_path / "a.h5")


def test_lazy_statistics_are_those_that_are_read_at_once(spectra):
    for layer in spectra.layers:
        xr.testing.assert_identical(spectra.lazy(layer).load(), spectra[layer])


@pytest.mark.parametrize(
    "selection",
    [
        {"epoch": 3},
        {"epoch": slice(None, None, -1), "index": slice(4, 1, -2)},
        {"epoch": [5, 0, 5], "group": slice(1, None)},
        {"group": [2, 1], "index": [0, 3]},
        {"epoch": xr.DataArray([1, 2], dims="at"), "index": xr.DataArray([0, 4], dims="at")},
    ],
)
def test_every_kind_of_selection_is_read_right(spectra, selection):
    whole, part = spectra["0"]["gradient"], spectra.lazy("0")["gradient"]
    xr.testing.assert_identical(part.isel(selection).load(), whole.isel(selection))


def test_only_what_is_used_is_read(spectra, monkeypatch):
    read = []
    monkeypatch.setattr(lazy.StoredArray, "_read", lambda array, key: read.append((array.name, key)) or np.zeros(()))
    gradient = spectra.lazy("0").gradient.isel(epoch=2, group=1, index=0)
    assert read == []
    gradient.to_numpy()
    assert read == [("/layers/0/gradient", (2, 1, 0))]


def test_values_of_another_file_are_not_mixed_in(spectra, tmp_path):
    values = spectra.lazy("0").gradient
    record(tmp_path / "a.h5", epochs=7, rate=0.5, overwrite=True)
    with pytest.raises(AutoSpecError, match=r"a.h5 was written anew since it was opened; open it again$"):
        values.load()
    (tmp_path / "a.h5").unlink()
    with pytest.raises(AutoSpecError, match=r"a.h5: No such file"):
        values.load()


def test_an_unknown_layer_is_named(spectra):
    with pytest.raises(AutoSpecError, match="has no layer 'x'; it has 0, 2"):
        spectra.lazy("x")


def test_epochs_are_divided_once_and_in_order(spectra):
    values = spectra["0"]
    largest = max(one.size // 7 for one in values.data_vars.values())
    blocks = list(epoch_blocks(values, 2 * largest))
    assert [list(range(7))[block] for block in blocks] == [[0, 1], [2, 3], [4, 5], [6]]
    assert len(list(epoch_blocks(values, 1))) == 7
    assert list(epoch_blocks(values.isel(epoch=slice(0)))) == []
    assert list(epoch_blocks(values["gradient"], 10**9)) == [slice(0, 10**9 // (3 * 5))]
