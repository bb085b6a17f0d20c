import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autospec import AutoSpecError, open_spectra
from autospec.store.schema import (
    EPOCH,
    GROUP_ROWS,
    GROUP_WEIGHT,
    RECORDED_EPOCHS,
    TRAINING_EPOCH,
    TRAINING_EPOCHS,
    Field,
    layer_field,
    layer_name,
)
from autospec.store.table import SpectraTable, read_table
from autospec.store.write import CHUNK_BYTES, CHUNK_EPOCHS, Header, _chunks, hdf5_attributes, write_spectra

GRADIENT = layer_field("net.0", "gradient", ("group", "index"))
FLOOR = layer_field("net.0", "floor/gradient", ("group",))
ROWS = layer_field("net.0", "rows", ("group",), "int64")
LOSS = Field("training/loss", (TRAINING_EPOCH,))


def _table(epochs=3):
    table = SpectraTable()
    for epoch in range(epochs):
        values = {
            RECORDED_EPOCHS: epoch,
            GROUP_ROWS: np.array([30, 20, 10]),
            GROUP_WEIGHT: np.array([1.0, 2 / 3, 1 / 3]),
            GRADIENT: np.full((3, 4), epoch + 1.0),
            FLOOR: np.full(3, 0.5),
            ROWS: np.array([30, 20, 2]),
        }
        table.append(values, EPOCH)
        table.append({TRAINING_EPOCHS: epoch, LOSS: 0.1 * epoch}, TRAINING_EPOCH)
    return table


def _header(**attributes):
    return Header(
        groups=["all", "SZ", "HC", "men"],
        margins={"men": ["SZ", "HC"]},
        group_sizes=[30, 20, 10, 30],
        attributes={"complete": True, "run_id": "r1", "simulated": True, **attributes},
        layers={"net.0": {"shape": (4, 9), "kind": "Linear"}, "net.10": {}, "net.2": {}},
    )


def _three_groups(**attributes):
    header = _header(**attributes)
    header.groups, header.margins, header.group_sizes = ["all", "SZ", "HC"], {}, [30, 20, 10]
    return header


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "spectra.h5"
    write_spectra(path, _table(), _three_groups())
    return path


def test_the_file_follows_the_schema_with_h5py_alone(path):
    with h5py.File(path) as file:
        assert file.attrs["schema_version"] == 1
        assert bool(file.attrs["complete"])
        assert file["epoch"][()].tolist() == [0, 1, 2]
        assert file["epoch"].dtype == np.int64
        gradient = file["layers/net.0/gradient"]
        assert gradient.shape == (3, 3, 4)
        assert [dimension.label for dimension in gradient.dims] == ["epoch", "group", "index"]
        assert [name.decode() for name in file["groups/name"]] == ["all", "SZ", "HC"]
        assert file["groups/size"][()].tolist() == [30, 20, 10]
        assert file["training/loss"].shape == (3,)
        assert [dimension.label for dimension in file["groups/members"].dims] == ["group", "other_group"]


def test_labelled_arrays(path):
    spectra = open_spectra(path)
    layer = spectra["net.0"]
    assert layer["gradient"].dims == ("epoch", "group", "index")
    assert float(layer["gradient"].sel(epoch=2, group="HC", index=1)) == 3.0
    assert float(spectra.scaled("net.0").sel(epoch=2, group="HC", index=1)) == pytest.approx(9.0)
    assert spectra.layers == ["net.0", "net.10", "net.2"]
    assert (spectra.run_id, spectra.complete, spectra.simulated) == ("r1", True, True)
    assert spectra.training["training_loss"].to_dict() == pytest.approx({0: 0, 1: 0.1, 2: 0.2})
    assert spectra.groups["group"].tolist() == ["all", "SZ", "HC"]
    assert "layers   net.0" in repr(spectra)


def test_tidy_table(tmp_path):
    header = _three_groups()
    header.layers = {"net.0": {}}
    write_spectra(tmp_path / "s.h5", _table(), header)
    frame = open_spectra(tmp_path / "s.h5").to_frame()
    assert len(frame) == 3 * 3 * 4
    row = frame[(frame.epoch == 1) & (frame.group == "HC") & (frame["index"] == 2)].iloc[0]
    assert (row.layer, row.value, row.floor, row.rank_bound) == ("net.0", 2.0, 0.5, 2)
    assert (row.scaled, row.scaled_floor) == pytest.approx((6.0, 1.5))


def test_margins_say_what_they_are_made_of(tmp_path):
    write_spectra(tmp_path / "s.h5", SpectraTable(), _header())
    members = open_spectra(tmp_path / "s.h5").members
    assert members == {
        "all": frozenset({"SZ", "HC"}),
        "SZ": frozenset({"SZ"}),
        "HC": frozenset({"HC"}),
        "men": frozenset({"SZ", "HC"}),
    }


def test_reading_back_goes_on_where_writing_ended(path):
    table = read_table(path)
    assert table.epochs == table.training_epochs == [0, 1, 2]
    table.append({RECORDED_EPOCHS: 3}, EPOCH)
    assert np.isnan(table["layers/net.0/gradient"][3]).all()
    assert table["layers/net.0/rows"][3].tolist() == [0, 0, 0]
    table.truncate(1)
    assert table.epochs == [0]
    assert table["training/loss"].tolist() == [0.0]


def test_a_dataset_that_comes_later_has_gaps_before():
    table = SpectraTable()
    table.append({RECORDED_EPOCHS: 0}, EPOCH)
    table.append({RECORDED_EPOCHS: 1, FLOOR: np.ones(2)}, EPOCH)
    assert np.isnan(table["layers/net.0/floor/gradient"][0]).all()
    assert "layers/net.0/floor/gradient" in table
    assert "nothing" not in table


def test_many_epochs_are_kept_and_chunked_together(tmp_path):
    write_spectra(tmp_path / "s.h5", _table(700), _three_groups())
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["layers/net.0/gradient"].chunks[0] == 350
        assert file["layers/net.0/gradient"][699, 0, 0] == 700


@given(epochs=st.integers(1, 3000), numbers=st.integers(1, 20_000))
def test_chunks_store_hardly_more_than_there_is(epochs, numbers):
    length, *_ = _chunks(np.broadcast_to(0.0, (epochs, numbers)))
    chunks = -(-epochs // length)
    assert length <= CHUNK_EPOCHS
    assert length == 1 or length * numbers * 8 <= CHUNK_BYTES
    assert chunks * length - epochs < chunks  # less than an epoch in each
    # no fewer chunks would do
    assert chunks == 1 or (chunks - 1) * max(1, min(CHUNK_EPOCHS, CHUNK_BYTES // (8 * numbers))) < epochs


def _make(path, content):
    path.write_bytes(content)
    return path


def test_files_that_are_something_else_are_named(path, tmp_path):
    with pytest.raises(AutoSpecError, match=r"absent\.h5: no such file"):
        open_spectra(tmp_path / "absent.h5")
    with pytest.raises(AutoSpecError, match=r"text\.h5 is not an HDF5 file"):
        open_spectra(_make(tmp_path / "text.h5", b"hello"))
    whole = path.read_bytes()
    with pytest.raises(AutoSpecError, match=r"cut\.h5 is truncated or damaged"):
        open_spectra(_make(tmp_path / "cut.h5", whole[: len(whole) // 2]))
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(AutoSpecError, match="not of spectra: it has no schema_version"):
        open_spectra(tmp_path / "foreign.h5")
    with h5py.File(tmp_path / "foreign.h5", "a") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(AutoSpecError, match="schema_version 99; this program reads 1"):
        open_spectra(tmp_path / "foreign.h5")


def test_what_was_not_recorded_is_named(path):
    spectra = open_spectra(path)
    with pytest.raises(AutoSpecError, match=r"no layer 'net\.1'; it has net\.0"):
        spectra["net.1"]
    with pytest.raises(AutoSpecError, match=r"adjoint spectra of layer 'net\.0' were not recorded"):
        spectra.to_frame("adjoint")
    with pytest.raises(AutoSpecError, match="statistic='rows' has no scale; allowed are gradient, activation, adjoint"):
        spectra.scaled("net.0", "rows")


def test_a_write_that_fails_leaves_what_was_there(path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(AutoSpecError, match=r"cannot write .*spectra\.h5: No space left on device"):
        write_spectra(path, _table(), _three_groups())
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["spectra.h5"]


def test_attributes_and_names():
    assert hdf5_attributes({"a": None, "b": "x", "c": 3}) == {"a": "", "b": "x", "c": 3}
    assert layer_name("module._orig_mod.encoder.0.weight") == "encoder.0"
    assert layer_name("attention.in_proj_weight") == "attention.in_proj_weight"
    assert layer_name("block.module.weight") == "block.module"
