"""Several processes record what one would on all samples at once."""

import h5py
import numpy as np
import pytest
import torch
from rank_workers import Case, train_shards, train_whole
from ranks import on_ranks

UNEVEN = ((0, 0, 1, 1, 2), (0, 1, 1))
ABSENT = ((0, 0, 0), (1, 2, 1, 2, -1))
CASES = {
    "unequal shards": Case((UNEVEN,)),
    "groups absent on a rank": Case((ABSENT,)),
    "mini-batches": Case((UNEVEN, ABSENT)),
    "accumulation under no_sync": Case((UNEVEN, ABSENT), accumulate=True),
    "positions and blocks": Case((UNEVEN, ABSENT), model="conv", statistics=("gradient", "activation", "adjoint", "tied")),
    "every other epoch": Case((UNEVEN,), every=2, epochs=4),
    "more rows than the layer is wide": Case((((0, 1, 2) * 9, (0, 1) * 8),)),
}


def assert_same_file(path, expected, tolerance=1e-10):
    """Every array of two files is the same, relative to its largest number."""
    with h5py.File(path) as found, h5py.File(expected) as file:
        arrays = {}
        file.visititems(lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
        names = []
        found.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert sorted(names) == sorted(arrays)
        for name, values in arrays.items():
            other = found[name][()]
            if values.dtype.kind != "f":
                assert np.array_equal(other, values), name
                continue
            scale = np.nanmax(np.abs(values), initial=0.0)
            assert np.array_equal(np.isnan(other), np.isnan(values)), name
            assert np.nanmax(np.abs(other - values), initial=0.0) <= tolerance * max(scale, 1e-300), name


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of the files that two processes wrote, and the weights of each process by case."""
    folder = tmp_path_factory.mktemp("two")
    return folder, on_ranks(train_shards, 2, folder, CASES, folder)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_write_what_one_writes_of_all_samples(case, two, tmp_path):
    folder, results = two
    weights = train_whole(CASES[case], 2, tmp_path / "whole.h5")
    for own in results:
        for found, expected in zip(own[case], weights, strict=True):
            assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert_same_file(folder / f"{case}.h5", tmp_path / "whole.h5")
