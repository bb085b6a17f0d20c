"""Several processes record what one would on all samples at once."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from rank_workers import (
    SMALL,
    Case,
    losses_of,
    network,
    raise_in_the_middle,
    stop_in_the_middle,
    train_either_way,
    train_shards,
    train_some,
    train_whole,
)
from ranks import assert_same_file, on_ranks
from references import content
from situation_workers import situations

from autospec.store.schema import MEASURE_NAMES

MEASURES = sorted({*MEASURE_NAMES} - {"diffusion_entropy"})  # which needs the rows themselves
UNEVEN = ((0, 0, 1, 1, 2), (0, 1, 1))
ABSENT = ((0, 0, 0), (1, 2, 1, 2, -1))
CASES = {
    "unequal shards": Case((UNEVEN,)),
    "groups absent on a rank": Case((ABSENT,)),
    "mini-batches": Case((UNEVEN, ABSENT)),
    "accumulation under no_sync": Case((UNEVEN, ABSENT), accumulate=True),
    "positions and blocks": Case(
        (UNEVEN, ABSENT), model="conv", statistics=("gradient", "activation", "adjoint", "tied")
    ),
    "measures": Case((UNEVEN, ABSENT), statistics=("gradient", *MEASURES)),
    "every other epoch": Case((UNEVEN,), every=2, epochs=4),
    "a group that nobody has": Case((((0, 0), (0, 1, 1)),)),
    "fewer batches in a process": Case((UNEVEN, ((0, 1, 1), ())), joins=True),
    "a large gradient is for one process": Case((UNEVEN, ABSENT), model="wide", statistics=("gradient", "rank")),
    "more rows than the layer is wide": Case((((0, 1, 2) * 9, (0, 1) * 8),)),
}


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


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """The folder of the files of ``situations``, and what was said in each of two processes."""
    folder = tmp_path_factory.mktemp("said")
    results = on_ranks(situations, 2, folder, folder)
    assert all(isinstance(own, dict) for own in results), results
    return folder, results


def _sigma(path, layer="0"):
    with h5py.File(path) as file:
        return file[f"layers/{layer}/gradient"][:, 0, 0]


def test_gradients_that_are_added_up_are_recorded_as_they_are(said):
    folder, results = said
    assert results[0]["added"] == results[1]["added"] == []
    model = network(SMALL)
    inputs = torch.cat([SMALL.inputs(0, rank) for rank in range(2)])
    (losses_of(model, inputs).sum() / 3).backward()
    assert _sigma(folder / "added.h5")[0] == pytest.approx(
        float(torch.linalg.svdvals(model[0].weight.grad)[0]), rel=1e-10
    )
    assert any("neither the average nor the sum" in text for text in results[0]["clipped"])


def test_a_wrapper_that_a_trainer_made_is_found(said):
    folder, results = said
    assert results[0]["clipped in a wrapper"] == []
    assert _sigma(folder / "inner.h5")[0] == pytest.approx(_sigma(folder / "added.h5")[0] / 2, rel=1e-10)


def test_alone_the_file_is_the_same_to_the_last_bit(tmp_path):
    for name, group in (("found.h5", None), ("alone.h5", False)):
        train_whole(replace(SMALL, settings=(("process_group", group),)), 2, tmp_path / name)
    assert content(tmp_path / "found.h5") == content(tmp_path / "alone.h5")
    with h5py.File(tmp_path / "found.h5") as file:
        assert "processes" not in file.attrs


def test_models_that_train_apart_are_told_apart_from_ones_that_train_together(said):
    folder, results = said
    assert any("process_group=False" in text and "not the average" in text for text in results[0]["not exchanged"])
    for rank in range(2):
        model = network(SMALL)
        losses_of(model, SMALL.inputs(0, rank)).mean().backward()
        own = float(torch.linalg.svdvals(model[0].weight.grad)[0])
        assert results[rank]["apart"] == pytest.approx(own, rel=1e-10)
        assert _sigma(folder / f"own_{rank}.h5")[0] == pytest.approx(own, rel=1e-10)


@pytest.mark.parametrize(
    ("situation", "text"),
    [
        ("other groups", "groups differs between processes: rank 1 has ('all', 'a', 'b'), rank 0 ('all', 'a', 'c')"),
        ("no batch", "epoch 0 ended without a recorder.batch(...)"),
        ("another engine", "engine='fast' makes passes of its own"),
        ("rows", "statistic 'diffusion_entropy' needs 'rows', which do not leave a process; record it in one alone"),
        ("scaled", "the optimizer gets 1/4096 of the gradients that backward left: a GradScaler multiplied the loss"),
        ("divided", "join(divide_by_initial_world_size=False) divides a batch's gradient by the number of processes"),
        ("empty", "in several processes make its pass outside recorder.batch(...)"),
        ("permutations", "permutations=... in several processes: each meets its own subjects alone"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(situation, text, said):
    assert text in said[1][1][situation]


def test_a_process_may_have_no_batch(said):
    folder, results = said
    model = network(SMALL)
    losses_of(model, SMALL.inputs(0, 0)).mean().backward()
    half = float(torch.linalg.svdvals(model[0].weight.grad)[0]) / 2  # of two processes' average
    assert [own["one without a batch"] for own in results] == pytest.approx([half, half], rel=1e-10)
    with h5py.File(folder / "one_without.h5") as file:
        assert file["training/loss"][:].tolist() == [4.0]
        assert file["training/metric"][:].tolist() == [0.5]


def test_a_process_may_have_no_samples_and_a_layer_may_be_unused_in_one(said):
    folder, results = said
    model = network(SMALL)
    losses_of(model, SMALL.inputs(0, 0)).mean().backward()
    assert _sigma(folder / "no_samples.h5")[0] == pytest.approx(
        float(torch.linalg.svdvals(model[0].weight.grad)[0]) / 2, rel=1e-10
    )
    assert _sigma(folder / "unused_by_one.h5", "second")[0] == pytest.approx(results[0]["unused by one"], rel=1e-10)


def test_a_hook_that_rounds_leaves_the_exact_average_and_one_that_loses_is_warned_of(said):
    folder, results = said
    assert results[0]["compressed"] == []
    assert _sigma(folder / "fp16.h5")[0] == pytest.approx(_sigma(folder / "inner.h5")[0], rel=1e-10)
    assert any("a lossy communication hook" in text for text in results[0]["lossy"])


def test_where_a_process_raises_the_others_end_with_one_line(tmp_path):
    results = on_ranks(raise_in_the_middle, 2, tmp_path, tmp_path)
    assert results[1] == "ValueError: the data are not what they were"
    assert "rank 0: another of the 2 processes has ended or does not answer" in results[0]
    assert "\n" not in results[0]
    with h5py.File(tmp_path / "spectra.h5") as file:
        assert file["epoch"][:].tolist() == [0, 1]


def test_some_of_the_processes_may_train_together(tmp_path):
    case = Case((UNEVEN,), model="wide", statistics=("gradient", "rank"))
    results = on_ranks(train_some, 3, tmp_path, case, tmp_path / "some.h5")
    assert results == [
        "process_group: this process is not one of its ranks; make the recorder on these alone",
        None,
        None,
    ]
    train_whole(case, 2, tmp_path / "whole.h5")
    assert_same_file(tmp_path / "some.h5", tmp_path / "whole.h5")


def test_the_floor_is_measured_over_all_processes(said, tmp_path):
    train_whole(replace(SMALL, dtype=torch.float32), 2, tmp_path / "whole.h5")
    with h5py.File(said[0] / "float32.h5") as file, h5py.File(tmp_path / "whole.h5") as whole:
        layer, expected = file["layers/0"], whole["layers/0"]
        assert layer["floor/measured"][:].tolist() == [1.0, 1.0, 1.0]
        assert np.allclose(layer["gradient"], expected["gradient"], rtol=0, atol=1e-6)
        ratio = layer["floor/gradient"][0, 0] / expected["floor/gradient"][0, 0]
        assert 1 / 30 < ratio < 30  # roundings of other sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("labels", [((0, 1, 2) * 50, (0, 1, -1) * 40), ((0,), (0, 1, -1) * 40)], ids=["many", "few"])
def test_gradients_that_are_brought_to_one_process_are_those_that_are_added_up(labels, dtype, tmp_path):
    settings = (("floor", "formula"),)
    case = Case((labels,), model="wide", dtype=dtype, statistics=("gradient",), settings=settings)
    results = on_ranks(train_either_way, 2, tmp_path, case, tmp_path)
    assert_same_file(tmp_path / "brought.h5", tmp_path / "added.h5", tolerance=1e-12)
    for own in results:
        assert own["brought"][0] <= own["added"][0]
        assert own["brought"][1] < own["added"][1]
    # the largest layer goes to the first process, in the precision that its sums have in both; few rows are no product
    is_single = dtype == torch.float32 and len(labels[0]) > 1
    of_layer = len({*labels[0], *labels[1]}) * 200 * 120 * (4 if is_single else 8)
    assert of_layer < results[1]["brought"][1] < of_layer + 20_000  # what each has to say, and spectra


def test_a_record_takes_three_messages_and_what_nobody_tells_none(said):
    for found, losses in (own["told between"] for own in said[1]):
        assert found[:3] == [5, 0, 0]  # at the first record gradients are compared with the optimizer's
        assert found[3:6] == [
            3,
            1,
            1,
        ]  # what each has to say, sums, spectra; where a loss was told at a record, it may be at the epochs after it
        assert found[6:8] == [3, 0]
        assert "told at an epoch without spectra, and none was told by any process at the record before" in found[8]
        assert losses == pytest.approx([np.nan, np.nan, np.nan, 2.5, 4.5, *[np.nan] * 3], nan_ok=True)


def test_options_of_the_wrapper_change_nothing(said):
    folder, results = said
    assert results[0]["ddp options"] == []
    for name in ("unused", "static"):
        assert _sigma(folder / f"{name}.h5") == pytest.approx(_sigma(folder / "float32.h5"), rel=1e-5)


def test_where_a_process_is_killed_the_others_end_with_one_line(tmp_path):
    results = on_ranks(stop_in_the_middle, 2, tmp_path, tmp_path)
    assert results[1] is None
    assert "rank 0: another of the 2 processes has ended or does not answer" in results[0]
    with h5py.File(tmp_path / "spectra.h5") as file:
        assert file["epoch"][:].tolist() == [0, 1, 2]
        assert not file.attrs["complete"]
        assert file.attrs["processes"] == 2


@pytest.mark.slow
def test_four_processes_write_what_one_writes_of_all_samples(tmp_path):
    shards = (((0, 0, 1), (2,), (0, -1, 1, 1, 2), (1, 1)), ((2,), (0, 1), (1, 1, 1), (0, 0, 2, 2)))
    cases = {"mlp": Case(shards), "conv": replace(Case(shards), model="conv", statistics=("gradient", "activation"))}
    on_ranks(train_shards, 4, tmp_path, cases, tmp_path)
    for name, case in cases.items():
        train_whole(case, 4, tmp_path / "whole.h5")
        assert_same_file(tmp_path / f"{name}.h5", tmp_path / "whole.h5")
        (tmp_path / "whole.h5").unlink()
