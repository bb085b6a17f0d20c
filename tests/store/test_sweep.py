"""Many runs as one table: what their configurations differ in, and one line for what cannot be read."""

import pandas as pd
import pytest
from small_runs import record

import autospec
from autospec.errors import AutoSpecError

CONFIG = "width: {width}\nseed: 1\ndataset:\n  name: {data}\nlayers: [a, b]\nepochs: 3\n"


@pytest.fixture
def outputs(tmp_path):
    for name, width, data in (("one", 5, "x"), ("two", 7, "y")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        about = {"run_id": name, "config": CONFIG.format(width=width, data=data)}
        record(tmp_path / "runs" / name / "spectra.h5", epochs=3, width=width, attributes=about)
    return tmp_path


def test_runs_stand_below_one_another_with_what_they_differ_in(outputs):
    table = autospec.open_sweep(outputs)
    assert list(table.columns[:3]) == ["run", "width", "dataset.name"]
    assert table["run"].unique().tolist() == ["one", "two"]
    for name, width in (("one", 5), ("two", 7)):
        part = table[table["run"] == name]
        assert set(part["width"]) == {width}
        expected = autospec.open_spectra(outputs / "runs" / name / "spectra.h5").to_frame()
        found = part[expected.columns].astype(expected.dtypes.to_dict()).reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected)
    means = table[table["index"] == 1].groupby(["width", "layer"], observed=True)["scaled"].mean()
    assert len(means) == 4


def test_less_is_read_where_less_is_asked_for(outputs):
    table = autospec.open_sweep(outputs, leading=1, layers="2", most_epochs=2, columns=["seed", "layers"])
    assert list(table.columns[:3]) == ["run", "seed", "layers"]
    assert set(table["layer"]) == {"2"}
    assert set(table["index"]) == {1}
    assert sorted(set(table["epoch"])) == [0, 2]
    assert set(table["layers"]) == {'["a", "b"]'}


def test_runs_of_ones_own_are_told_by_the_attributes_that_they_were_given(tmp_path):
    for rate in (0.1, 0.2):
        record(tmp_path / f"rate{rate}.h5", epochs=1, rate=rate, attributes={"rate": rate, "index": rate, "note": "a"})
    record(tmp_path / "other.h5", epochs=1)
    table = autospec.open_sweep(tmp_path)
    assert list(table.columns[:4]) == ["run", "config.index", "note", "rate"]
    rates = table.groupby("run", observed=True)["rate"].first()
    assert rates["rate0.1.h5"] == 0.1
    assert pd.isna(table.loc[table["run"] == "other.h5", "rate"]).all()


def test_mistakes_are_one_line(outputs, tmp_path):
    with pytest.raises(AutoSpecError, match="columns: no run's configuration has 'widht'; did you mean 'width'?"):
        autospec.open_sweep(outputs, columns=["widht"])
    with pytest.raises(AutoSpecError, match="there is no folder .*absent"):
        autospec.open_sweep(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AutoSpecError, match="empty holds no runs: there is no spectra.h5 below it"):
        autospec.open_sweep(tmp_path / "empty")
    with pytest.raises(AutoSpecError, match="has no layer 'x'; it has 0, 2"):
        autospec.open_sweep(outputs, layers="x")
    with pytest.raises(AutoSpecError, match="activation spectra of layer '0' were not recorded"):
        autospec.open_sweep(outputs, "activation")
    record(tmp_path / "empty" / "a.h5", epochs=1, attributes={"config": "[1"})
    with pytest.raises(AutoSpecError, match="a.h5: its configuration is no YAML of keys and values"):
        autospec.open_sweep(tmp_path / "empty")
