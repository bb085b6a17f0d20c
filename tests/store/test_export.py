"""NetCDF and Parquet hold what the file holds, whatever the size of the pieces they are copied in."""

import tracemalloc

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
from small_runs import record

from autospec import open_spectra
from autospec.errors import AutoSpecError
from autospec.store import netcdf, parquet


@pytest.fixture(params=[10**9, 7], ids=["at once", "in pieces"])
def pieces(request, monkeypatch):
    monkeypatch.setattr(parquet, "MOST_VALUES", request.param)
    blocks = netcdf.epoch_blocks
    monkeypatch.setattr(netcdf, "epoch_blocks", lambda values: blocks(values, request.param))


@pytest.fixture
def spectra(tmp_path):
    statistics = ("gradient", "activation", "adjoint", "rank", "subspace")
    about = {"source": "a <source>", "simulated": True, "run_id": "run-1"}
    record(tmp_path / "a.h5", epochs=6, statistics=statistics, group_sizes=[12, 6, 6], attributes=about)
    return open_spectra(tmp_path / "a.h5")


def test_netcdf_holds_every_statistic_of_every_layer(spectra, pieces, tmp_path):
    spectra.to_netcdf(tmp_path / "a.nc")
    with xr.open_datatree(tmp_path / "a.nc", engine="h5netcdf") as tree:
        assert list(tree["layers"]) == spectra.layers
        for layer in spectra.layers:
            copy = tree[f"layers/{layer}"].to_dataset()
            xr.testing.assert_equal(copy, xr.Dataset(dict(spectra[layer].data_vars), spectra[layer].coords))
            assert tuple(copy.attrs["shape"]) == spectra.shapes[layer]
            assert copy["gradient"].dims == ("epoch", "group", "index")
        assert tree.attrs["source"] == "a <source>"
        assert tree.attrs["simulated"] == 1
        assert tree["size"].values.tolist() == [12, 6, 6]
        xr.testing.assert_equal(tree["records"].to_dataset()["weight"], spectra.weight)
        training = tree["training"].to_dataset(inherit=False).to_dataframe()
        pd.testing.assert_frame_equal(training, spectra.training)


@pytest.mark.parametrize("statistic", ["gradient", "activation", "adjoint"])
def test_parquet_is_the_tidy_table(spectra, pieces, tmp_path, statistic):
    spectra.to_parquet(tmp_path / "a.parquet", statistic, leading=2)
    back = pd.read_parquet(tmp_path / "a.parquet")
    expected = spectra.to_frame(statistic, leading=2)
    assert len(expected) > 0
    pd.testing.assert_frame_equal(back, expected)


def test_parquet_says_what_it_is_of(spectra, tmp_path):
    spectra.to_parquet(tmp_path / "a.parquet")
    about = pq.read_schema(tmp_path / "a.parquet").metadata
    assert about[b"autospec.run_id"] == b"run-1"
    assert about[b"autospec.simulated"] == b"True"


def test_mistakes_are_one_line_and_leave_no_file(spectra, tmp_path):
    with pytest.raises(AutoSpecError, match="statistic='x' has no scale; allowed are gradient, activation, adjoint"):
        spectra.to_parquet(tmp_path / "x.parquet", "x")
    record(tmp_path / "g.h5", epochs=1)
    with pytest.raises(AutoSpecError, match="activation spectra of layer '0' were not recorded"):
        open_spectra(tmp_path / "g.h5").to_parquet(tmp_path / "x.parquet", "activation")
    with pytest.raises(AutoSpecError, match="cannot write .*nowhere/x.nc"):
        spectra.to_netcdf(tmp_path / "nowhere" / "x.nc")
    with pytest.raises(AutoSpecError, match="cannot write .*nowhere/x.parquet"):
        spectra.to_parquet(tmp_path / "nowhere" / "x.parquet")
    assert not list(tmp_path.glob("*x.*"))


def test_a_file_without_records_is_exported_empty(tmp_path):
    record(tmp_path / "none.h5", epochs=0)
    spectra = open_spectra(tmp_path / "none.h5")
    spectra.to_netcdf(tmp_path / "none.nc")
    with xr.open_datatree(tmp_path / "none.nc", engine="h5netcdf") as tree:
        assert tree["records"].sizes["epoch"] == 0
    with pytest.raises(AutoSpecError, match="no spectra are recorded yet"):
        spectra.to_parquet(tmp_path / "none.parquet")


@pytest.mark.slow
def test_a_file_larger_than_the_memory_it_may_take_is_read_and_exported_in_pieces(tmp_path):
    """What is held at a time is a part of the one layer that is read, copied and tabulated."""
    epochs, width = 20_000, 64
    path = tmp_path / "large.h5"
    record(path, epochs=1)
    names = [b"all", b"SZ", b"HC"]
    with h5py.File(path) as small, h5py.File(tmp_path / "wide.h5", "w") as file:
        file.attrs["schema_version"] = 1
        for name in ("groups/name", "groups/margin", "groups/members"):
            small.copy(name, file.require_group("groups"))
        assert file["groups/name"][()].tolist() == names
        shapes = {"epoch": (), "groups/weight": (3,), "layers/a/rows": (3,), "layers/a/floor/gradient": (3,)}
        for name, shape in {**shapes, "layers/a/gradient": (3, width)}.items():
            data = np.broadcast_to(np.arange(1, epochs + 1).reshape(-1, *(1 for _ in shape)), (epochs, *shape))
            dataset = file.create_dataset(name, data=data * (1 if name == "epoch" else 1.0), chunks=(500, *shape))
            for axis, label in enumerate(("epoch", "group", "index")[: dataset.ndim]):
                dataset.dims[axis].label = label
        file["layers/a"].attrs.update({"shape": (width, width), "kind": "Linear"})
    spectra = open_spectra(tmp_path / "wide.h5")
    whole = 8 * epochs * 3 * width
    asks = {
        "lazy": lambda: float(spectra.lazy("a")["gradient"].isel(index=0, group=1).max()),
        "netcdf": lambda: spectra.to_netcdf(tmp_path / "a.nc"),
    }
    for name, ask in asks.items():
        ask()  # imports
        assert _most_bytes(ask) < 0.6 * whole, name
    rows = _most_bytes(lambda: spectra.to_parquet(tmp_path / "a.parquet"))
    assert rows < 0.25 * 9 * whole  # a table has nine columns
    assert pq.read_metadata(tmp_path / "a.parquet").num_rows == epochs * 3 * width
    last = pq.ParquetFile(tmp_path / "a.parquet").read_row_group(
        pq.read_metadata(tmp_path / "a.parquet").num_row_groups - 1
    )
    assert last["value"][-1].as_py() == epochs
    with xr.open_datatree(tmp_path / "a.nc", engine="h5netcdf") as tree:
        assert float(tree["layers/a/gradient"][-1, 2, -1]) == epochs


def _most_bytes(ask):
    tracemalloc.start()
    try:
        ask()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
