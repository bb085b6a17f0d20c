"""Of a model whose weights each process holds a piece of (``fully_shard``), the file is that of one process."""

from dataclasses import replace

import h5py
import pytest
import torch
from rank_workers import SMALL, Case, losses_of, network, train_whole
from ranks import assert_same_file, on_ranks
from sharded_workers import WRAPPERS, reentrant, situations, train_all

from autospec import AutoSpecError
from autospec.recording.sharded import refuse_offloaded
from autospec.store.schema import MEASURE_NAMES

MEASURES = sorted({*MEASURE_NAMES} - {"diffusion_entropy"})  # which needs the rows themselves
UNEVEN = ((0, 0, 1, 1, 2), (0, 1, 1))
ABSENT = ((0, 0, 0), (1, 2, 1, 2, -1))
LONELY = ((0, 0, 1, 1), (2,))
CASES = {
    # one process traces rows in batches in which the other knows them, or has one sample and need not
    "mini-batches": Case((UNEVEN, ABSENT, LONELY)),
    "accumulation": Case((UNEVEN, ABSENT), accumulate=True, epochs=2),
    "measures, every other epoch": Case((UNEVEN,), statistics=("gradient", *MEASURES), every=2, epochs=4),
    "positions and blocks": Case((UNEVEN, ABSENT), model="conv", statistics=("gradient", "activation", "tied")),
    "a process without a piece of the last layer": Case(
        (UNEVEN, ABSENT), model="narrow", statistics=("gradient", "rank")
    ),
    "rules that look at weights": Case((UNEVEN,), model="sequence", statistics=("gradient", "adjoint"), epochs=2),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of the files that two processes wrote, and the weights of each process by case."""
    folder = tmp_path_factory.mktemp("sharded")
    results = on_ranks(train_all, 2, folder, CASES, folder)
    assert all(isinstance(own, dict) for own in results), results
    return folder, results


@pytest.mark.parametrize("name", [*CASES, *WRAPPERS])
def test_in_pieces_two_processes_write_what_one_writes_of_all_samples(name, two, tmp_path):
    folder, results = two
    weights = train_whole(CASES.get(name, CASES["mini-batches"]), 2, tmp_path / "whole.h5")
    for own in results:
        for found, expected in zip(own[name], weights, strict=True):
            assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert_same_file(folder / f"{name}.h5", tmp_path / "whole.h5")


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """The folder of the files of ``situations``, and what was said in each of two processes."""
    folder = tmp_path_factory.mktemp("said")
    results = on_ranks(situations, 2, folder, folder)
    assert all(isinstance(own, dict) for own in results), results
    return folder, results


def _first(path, layer="0"):
    with h5py.File(path) as file:
        return file[f"layers/{layer}/gradient"][:, 0, 0]


def _averaged(case=SMALL):
    """The first singular value of the gradient that two processes average, before the first step."""
    model = network(case)
    (sum(losses_of(model, case.inputs(0, rank)).mean() for rank in range(2)) / 2).backward()
    return float(torch.linalg.svdvals(model[0].weight.grad)[0])


def test_a_checkpoint_and_clipping_change_nothing(said):
    folder, results = said
    assert results[0]["checkpointed"] == results[0]["clipped"] == []
    assert _first(folder / "checkpointed.h5", "network.0")[0] == pytest.approx(_averaged(), rel=1e-10)
    assert _first(folder / "clipped.h5")[0] == pytest.approx(_averaged(), rel=1e-10)


def test_gradients_that_are_added_up_are_recorded_as_they_are(said):
    folder, results = said
    assert results[0]["added"] == []
    assert _first(folder / "added.h5")[0] == pytest.approx(2 * _averaged(), rel=1e-10)


def test_with_half_precision_the_spectra_are_those_of_half_precision(said):
    folder, results = said
    assert results[0]["half"] == []
    assert _first(folder / "half.h5")[0] == pytest.approx(_averaged(replace(SMALL, dtype=torch.float32)), rel=3e-2)


def test_the_floor_is_the_formulas(said):
    assert said[1][0]["default floor"] == "eps sqrt(min(shape)) |A| |D|"


@pytest.mark.parametrize(
    ("situation", "text"),
    [
        ("engine", "engine='fast' makes passes that fully_shard does not see; use engine='hooks'"),
        ("floor", "floor='measured' repeats batches on a copy of the model, and there is none of weights in pieces"),
        ("apart", "process_group=False: processes that hold pieces of one model (fully_shard) train together"),
        (
            "no samples",
            "of weights in pieces (fully_shard) rows are traced in all processes at once, so that each needs a",
        ),
        ("table", "check(...) makes passes that fully_shard does not see; check the model before it is sharded"),
        ("compiled", "fully_shard and torch.compile together are not recorded"),
        ("tensor parallel", "'0.weight' is a DTensor that fully_shard alone did not make (tensor parallel)"),
        ("flattened", "FullyShardedDataParallel: each process holds a piece of flattened weights"),
        ("by functions", "calls of functions would explain it, which do not see the pieces"),
    ],
)
def test_what_is_not_served_is_refused_by_name(situation, text, said):
    for own in said[1]:
        assert text in own[situation]


def test_weights_that_wait_on_another_device_are_refused():
    with pytest.raises(AutoSpecError, match=r"'0.weight' is held on cpu and runs on cuda \(CPUOffloadPolicy\)"):
        refuse_offloaded("0.weight", "cpu", "cuda")


def test_a_checkpoint_that_runs_down_to_the_weights_is_refused(tmp_path):
    for result in on_ranks(reentrant, 2, tmp_path, tmp_path):
        assert "a reentrant checkpoint of weights in pieces; use use_reentrant=False" in result
