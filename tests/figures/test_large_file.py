"""A file of 10,000 epochs, 100 layers and 8 groups is opened and drawn in bounded time and memory."""

import time
import tracemalloc

import h5py
import numpy as np
import pytest

from autospec import open_spectra
from autospec.figures.report.page import write_report
from autospec.store.schema import GROUP_IS_MARGIN, GROUP_MEMBERS, GROUP_NAMES, LAYERS

EPOCHS, LAYER_COUNT, GROUPS, WIDTH = 10_000, 100, 8, 16
LAYER_BYTES = 8 * EPOCHS * (GROUPS + 1) * WIDTH


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file whose layers are one and the same by hard links, so that it takes a hundredth of its size."""
    path = tmp_path_factory.mktemp("large") / "spectra.h5"
    names = ["all", *(f"g{number}" for number in range(GROUPS))]
    decay = np.exp(-np.arange(EPOCHS) / 3000)[:, None, None] * np.exp(-np.arange(WIDTH) / 3)
    arrays = {
        "epoch": (np.arange(EPOCHS), ("epoch",)),
        "groups/weight": (np.ones((EPOCHS, GROUPS + 1)), ("epoch", "group")),
        "layers/layer.0/gradient": (decay * np.linspace(1, 2, GROUPS + 1)[:, None], ("epoch", "group", "index")),
        "layers/layer.0/floor/gradient": (np.full((EPOCHS, GROUPS + 1), 1e-9), ("epoch", "group")),
        "layers/layer.0/rows": (np.full((EPOCHS, GROUPS + 1), 100), ("epoch", "group")),
        "layers/layer.0/cosine": (np.ones((EPOCHS, GROUPS + 1, GROUPS + 1)), ("epoch", "group", "other_group")),
        "layers/layer.0/cancellation": (np.ones(EPOCHS), ("epoch",)),
    }
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"] = 1
        file.create_dataset(GROUP_NAMES, data=np.array(names, dtype=object), dtype=h5py.string_dtype())
        file[GROUP_IS_MARGIN] = np.zeros(GROUPS + 1, dtype=bool)
        members = np.eye(GROUPS + 1, dtype=bool)
        members[0] = ~members[0]
        file[GROUP_MEMBERS] = members
        file.create_group(LAYERS, track_order=True)
        for name, (values, dimensions) in arrays.items():
            dataset = file.create_dataset(name, data=values, chunks=(512, *values.shape[1:]))
            for axis, dimension in enumerate(dimensions):
                dataset.dims[axis].label = dimension
        file["layers/layer.0"].attrs.update({"shape": (WIDTH, WIDTH), "kind": "Linear"})
        for number in range(1, LAYER_COUNT):
            file[f"layers/layer.{number}"] = file["layers/layer.0"]
    return path


@pytest.mark.slow
def test_the_report_of_a_large_file_is_bounded(path, tmp_path):
    page = tmp_path / "report.html"
    tracemalloc.start()
    try:
        write_report(path, page)
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most_bytes < 0.2 * LAYER_COUNT * LAYER_BYTES
    assert page.stat().st_size < 12e6
    text = page.read_text()
    assert "of 10000 recorded epochs; the first 24 of 100 layers. The file holds all." in text


def _cost(ask):
    """CPU seconds, which other programs on the machine do not change, and the largest number of bytes held."""
    started = time.process_time()
    ask()
    seconds = time.process_time() - started
    tracemalloc.start()  # apart, since it makes everything several times slower
    try:
        ask()
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_large_file_is_opened_and_drawn(path, tmp_path):
    open_spectra(path).plot(layers="layer.0")  # imports
    opened_s, opened_bytes = _cost(lambda: str(open_spectra(path)))
    assert opened_s < 1
    assert opened_bytes < LAYER_BYTES
    spectra = open_spectra(path)
    asks = {
        "spectra": lambda: spectra.plot(path=tmp_path / "a.png"),
        "differences": lambda: spectra.plot_differences("g0", "g7", path=tmp_path / "b.png"),
        "summary": spectra.summary,
    }
    for name, ask in asks.items():
        seconds, most_bytes = _cost(ask)
        assert seconds < 10, name
        assert most_bytes < 0.2 * LAYER_COUNT * LAYER_BYTES, name
