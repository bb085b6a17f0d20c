"""Runs of earlier versions: their names stay, their files are read and count as complete."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from autospec import open_spectra
from autospec.experiments.config.grid import ARCHITECTURES_OF, compose_config
from autospec.experiments.plan import plan_run
from autospec.experiments.runs.folder import RunFolder
from autospec.experiments.runs.status import status

ROOT = Path(__file__).resolve().parents[2]

# Names that version 0.1.0 gave. A change here orphans the runs that users have; raise NUMBERS_VERSION of run_id only
# when a configuration computes other numbers than before.
RUN_IDS = {
    ("mnist", "mlp"): "mnist-mlp-autoencoding-relu-w32-0a86bd7ca4",
    ("mnist", "cnn2d"): "mnist-cnn2d-autoencoding-relu-w32-acf5a1db24",
    ("sinusoid", "mlp"): "sinusoid-mlp-autoencoding-relu-w32-6d9f6bd0af",
    ("sinusoid", "rnn"): "sinusoid-rnn-autoencoding-relu-w32-8751385c1d",
    ("sinusoid", "lstm"): "sinusoid-lstm-autoencoding-relu-w32-b05bad395b",
    ("sinusoid", "bert"): "sinusoid-bert-autoencoding-relu-w32-4cc85a754d",
    ("sinusoid", "cnn1d"): "sinusoid-cnn1d-autoencoding-relu-w32-84599dc0b1",
    ("freesurfer", "mlp"): "freesurfer-mlp-autoencoding-relu-w32-edee1faf39",
    ("cobre_timeseries", "mlp"): "cobre_timeseries-mlp-autoencoding-relu-w32-cbb1e0954a",
    ("cobre_timeseries", "rnn"): "cobre_timeseries-rnn-autoencoding-relu-w32-0121e73a12",
    ("cobre_timeseries", "lstm"): "cobre_timeseries-lstm-autoencoding-relu-w32-40ab4aefe7",
    ("cobre_timeseries", "bert"): "cobre_timeseries-bert-autoencoding-relu-w32-60d577f9b1",
    ("cobre_timeseries", "cnn1d"): "cobre_timeseries-cnn1d-autoencoding-relu-w32-a22d479055",
    ("cobre_timeseries", "cnn2d"): "cobre_timeseries-cnn2d-autoencoding-relu-w32-e25c183776",
    ("cobre_maps", "mlp"): "cobre_maps-mlp-autoencoding-relu-w32-10d2136464",
    ("cobre_maps", "cnn3d"): "cobre_maps-cnn3d-autoencoding-relu-w32-23fb0e565a",
}

EARLIER = "sinusoid-mlp-autoencoding-tanh-w2-ad70a9e040"
EARLIER_COMMAND = [
    *("dataset=sinusoid", "architecture=mlp", "task=autoencoding", "activation=tanh", "width=2", "epochs=2"),
    *("dataset.per_class=2", "dataset.time_points=6", "dataset.classes=[0,1]", "introspection.layers=[head]"),
]

EARLIER_GRADIENT = [
    [
        [0.1540436867910443, 0.08026474000629431],
        [0.11199803028474464, 0.011620522235927414],
        [0.12006564549635527, 0.02212256171630193],
    ],
    [
        [0.1528206851653914, 0.08055681108533085],
        [0.1121977400428005, 0.011447115620373111],
        [0.11909554911503135, 0.022149921174861486],
    ],
]
"""(epoch, group, index) as version 0.1.0 read them."""


ADDED_SINCE = ("cobre_fnc", "cobre_multiscale")
"""Data sets that no earlier run is of."""


def test_every_data_set_and_architecture_has_a_name_from_before():
    cells = [(data, network) for data, networks in ARCHITECTURES_OF.items() for network in networks]
    assert list(RUN_IDS) == [cell for cell in cells if cell[0] not in ADDED_SINCE]


@pytest.mark.parametrize(("data", "network"), RUN_IDS)
def test_a_run_is_called_as_before(data, network):
    choice = [f"dataset={data}", f"architecture={network}", "task=autoencoding", "activation=relu"]
    assert plan_run(compose_config(ROOT / "conf", choice)).folder.run_id == RUN_IDS[data, network]


@pytest.fixture
def earlier(tmp_path) -> RunFolder:
    """A run folder that version 0.1.0 made, schema 1."""
    folder = tmp_path / "outputs" / "runs" / EARLIER
    shutil.copytree(ROOT / "tests" / "data" / "schema_1" / "runs" / EARLIER, folder)
    packed = folder / "spectra.h5.gz"
    (folder / "spectra.h5").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    return RunFolder(folder)


def test_a_run_made_before_is_complete_and_is_not_made_again(earlier, run):
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in earlier.path.iterdir()}
    assert status(earlier).state == "done"
    assert run(*EARLIER_COMMAND) == ""
    assert [path.name for path in earlier.path.parent.iterdir()] == [EARLIER]
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in earlier.path.iterdir()} == before


def test_the_spectra_of_a_run_made_before_are_read(earlier):
    spectra = open_spectra(earlier.spectra)
    assert spectra.complete
    assert spectra.simulated
    assert spectra.run_id == EARLIER
    assert spectra.layers == ["head"]
    assert spectra.group_names == ["all", "0", "1"]
    assert spectra.groups["size"].tolist() == [4, 2, 2]
    assert spectra.training["training_loss"].notna().tolist() == [True, True]
    gradient = spectra["head"]["gradient"]
    assert gradient.dims == ("epoch", "group", "index")
    np.testing.assert_allclose(gradient.values, EARLIER_GRADIENT, rtol=1e-12)
