"""What checksums cost: bytes of a file, processor time of a write and of a whole run, against files without any."""

import sys
import time
from functools import partial

import h5py
import numpy as np
import pytest

from autospec.store import write

MOST = 0.05
"""The share by which files and runs may grow."""


def _without_checksums(spectra_bytes, table, header):
    """The bytes of a file whose datasets lie there as they are, and of which no digest is made."""

    def create(file, path, dimensions, values):
        dataset = file.create_dataset(path, values.shape, values.dtype).id
        for axis, dimension in enumerate(dimensions):
            h5py.h5ds.set_label(dataset, axis, dimension.encode())
        return dataset

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "_create_dataset", create)
        patch.setattr(write, "digest_to_write", lambda arrays, folders: 64 * "0")
        patch.setattr(write, "text_checksums", lambda content: np.zeros((1, 3), dtype=np.int64))
        return spectra_bytes(table, header)


class Costs:
    """Writes every file with and without checksums, one after the other, and keeps the processor time of each."""

    def __init__(self):
        self.seconds = {True: [], False: []}
        self.sizes = {True: 0, False: 0}
        self._spectra_bytes = write.spectra_bytes

    def __call__(self, table, header):
        images = {}
        for checked in (False, True) if len(self.seconds[True]) % 2 else (True, False):
            began = time.process_time()
            make = self._spectra_bytes if checked else partial(_without_checksums, self._spectra_bytes)
            images[checked] = make(table, header)
            self.seconds[checked].append(time.process_time() - began)
            self.sizes[checked] = len(images[checked])
        return images[True]


@pytest.mark.slow
@pytest.mark.parametrize("panel", ["A", "B"])
def test_checksums_take_less_than_a_twentieth_of_a_run_and_of_its_file(run, monkeypatch, panel):
    costs = Costs()
    monkeypatch.setattr(write, "spectra_bytes", costs)
    began = time.process_time()
    assert run("figure=fig1", f"panel={panel}", "dataset.per_digit=50", "introspection.permutations=0") == ""
    whole = time.process_time() - began - sum(costs.seconds[False])
    grown_s = sum(costs.seconds[True]) - sum(costs.seconds[False])
    sys.stdout.write(  # the figures of docs/robustness.md
        f"{len(costs.seconds[True])} writes, {sum(costs.seconds[False]):.4f} s without checksums, {grown_s:.4f} s more "
        f"with them, of {whole:.2f} s; {costs.sizes[False]} bytes without, {costs.sizes[True]} with\n"
    )
    assert grown_s < MOST * whole
    assert costs.sizes[True] < (1 + MOST) * costs.sizes[False]
