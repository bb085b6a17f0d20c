import inspect
import json
import sys

import numpy as np
import pytest
import torch

from autospec import AutoSpecError
from autospec.experiments.benchmark import rounds, several
from autospec.experiments.benchmark.arms import ARMS, BACKPACK, LOOP, OPACUS, PLAIN, PLAIN_AGAIN
from autospec.experiments.benchmark.growth import AXES, GROUP_COUNTS, curve, growth_table
from autospec.experiments.benchmark.least import gram_sides, grams_of_sides
from autospec.experiments.benchmark.page import page
from autospec.experiments.benchmark.peers import opacus, vmap_grad
from autospec.experiments.benchmark.picture import draw_bars
from autospec.experiments.benchmark.problems import SHAPES, bert_block, problem, residual_stack
from autospec.experiments.benchmark.table import Row, apart, memory_table, read_json, reasons, time_table, write_json
from autospec.recording.pending_records import PendingRecords

OPTIONAL = (OPACUS, BACKPACK)
"""Arms of libraries that are not installed with the others."""


@pytest.mark.parametrize("name", SHAPES)
def test_every_architecture_reconstructs_its_inputs(name):
    given = problem(name, samples=6)
    assert given.model(given.inputs).shape == given.inputs.shape
    assert given.weights
    assert set(given.group.tolist()) <= {0, 1, 2, 3}


def test_an_unknown_model_is_an_error():
    with pytest.raises(
        AutoSpecError, match="model='gan': allowed are mlp, rnn, lstm, bert, cnn1d, cnn2d, cnn3d, bert-base, resnet-50"
    ):
        problem("gan")


def test_every_arm_takes_the_same_training_step():
    """Whatever is measured beside it: after three steps all networks give the same loss."""
    torch.manual_seed(0)
    given = problem("cnn1d", samples=12, width=4)
    steps = {name: arm(given) for name, arm in ARMS.items() if name not in OPTIONAL}
    losses = {}
    for name, step in steps.items():
        for _ in range(3):
            step()
        held = inspect.getclosurevars(step).nonlocals if inspect.isfunction(step) else vars(step)
        model = held["model"]
        losses[name] = float((model(given.inputs) - given.inputs).square().mean().detach())
    assert losses == pytest.approx(dict.fromkeys(losses, losses[PLAIN]), rel=1e-5)


def test_the_least_that_all_statistics_cost_is_of_the_smaller_sides():
    """Two linear layers, 784 to 4 and back."""
    given = problem("mlp", samples=12, width=4)
    rows = [12, *given.group.bincount().tolist()]
    narrow = [min(count, 4) for count in rows]  # but for the adjoints of 784 outputs
    assert sorted(gram_sides(given)) == sorted(3 * narrow + rows)
    assert [tuple(gram.shape) for gram in grams_of_sides([2, 3])] == [(2, 2), (3, 3)]


def test_ratios_are_paired_within_rounds(monkeypatch):
    """Plain training takes 2 and 4 seconds in a round, another arm 6: 2 over the mean, plain again 2 over the first."""
    clock = {PLAIN: 2.0, PLAIN_AGAIN: 4.0, LOOP: 6.0}
    monkeypatch.setattr(rounds, "ARMS", {name: lambda given, name=name: name for name in clock})
    monkeypatch.setattr(rounds, "_seconds", lambda step, repetitions: clock[step] * repetitions)
    ratios, cannot = rounds.time_ratios(None, [LOOP], 4)
    assert {name: set(values) for name, values in ratios.items()} == {PLAIN: {2 / 3}, PLAIN_AGAIN: {2.0}, LOOP: {2.0}}
    assert not cannot


def test_a_method_that_cannot_do_a_model_says_why(monkeypatch):
    given = residual_stack(samples=4, groups=2, pixels=32)
    monkeypatch.setattr(rounds, "_seconds", lambda step, repetitions: 1.0)
    ratios, cannot = rounds.time_ratios(given, [LOOP, "vmap(grad)"], 1)
    assert set(ratios) == {PLAIN, PLAIN_AGAIN}
    assert cannot == dict.fromkeys(
        (LOOP, "vmap(grad)"), "BatchNorm: with some of the samples alone it is another network"
    )


def test_a_library_that_is_not_there_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.grad_sample", None)
    with pytest.raises(AutoSpecError, match=r"not installed: pip install 'autospec-torch\[benchmark\]'"):
        opacus(problem("mlp", samples=4).model, problem("mlp", samples=4))


def test_gradients_of_samples_are_those_of_a_loop():
    given = problem("mlp", samples=5, width=4)
    gradients_of = vmap_grad(given.model, given)
    for place, found in enumerate(zip(*gradients_of(), strict=True)):
        (given.losses(given.model, slice(place, place + 1)).sum() / 5).backward()
        for weight, own in zip(given.model.parameters(), found, strict=True):
            assert torch.allclose(own, weight.grad, atol=1e-7)
            weight.grad = None


@pytest.mark.slow
@pytest.mark.parametrize("make", [bert_block, residual_stack])
def test_the_large_blocks_train_and_their_groups_take_turns(make):
    given = make(4, 2)
    losses = given.losses(given.model)
    losses.mean().backward()
    assert losses.shape == (4,)
    assert all(weight.grad is not None for weight in given.weights)
    assert given.group.tolist() == [0, 1, 0, 1]


ROWS = [
    Row.of("mlp", PLAIN_AGAIN, np.array([0.98, 1.0, 1.04]), None),
    Row.of("mlp", "fast", np.array([1.0, 1.1, 1.2]), 1.1),
    Row.of("mlp", LOOP, np.array([1.3, 1.3, 1.3]), 1.0),
    Row.of("rnn", PLAIN_AGAIN, np.array([1.0, 1.02, 1.03]), None),
    Row.of("rnn", "fast", np.array([1.1, 1.1, 1.1]), None),
    Row.of("rnn", LOOP, np.array([1.0, 1.0, 1.0]), None),
    Row("mlp", OPACUS, None, reason="not today"),
    Row("rnn", OPACUS, None, reason="not today"),
]


def test_the_table_marks_who_is_faster():
    assert time_table(ROWS).splitlines() == [
        "| time over plain | mlp | rnn | geometric mean |",
        "| --- | --- | --- | --- |",
        "| plain again | 1.00 (0.99-1.02) | 1.02 (1.01-1.02) | 1.01 |",
        "| fast | 1.10 (1.05-1.15) | 1.10 (1.10-1.10) | 1.10 |",
        "| loop over groups | 1.30 (1.30-1.30) | **1.00 (1.00-1.00)** | 1.14 |",
        "| Opacus | - | - |  |",
    ]
    assert memory_table(ROWS).splitlines()[4] == "| loop over groups | **1.00** | - |  |"
    assert reasons(ROWS) == ["Opacus on mlp, rnn: not today"]
    assert "medians of the ratio are up to 2% from 1, the quartiles up to 2%" in apart(ROWS)
    assert apart(ROWS[1:3]) == "Plain training was not timed twice."


def test_rows_are_written_and_read(tmp_path):
    write_json(ROWS, tmp_path / "rows.json")
    first = json.loads((tmp_path / "rows.json").read_text())[1]
    assert {key: first[key] for key in ("model", "method", "time_ratio", "memory_ratio")} == {
        "model": "mlp",
        "method": "fast",
        "time_ratio": pytest.approx(1.1),
        "memory_ratio": 1.1,
    }
    write_json(read_json(tmp_path / "rows.json"), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "rows.json").read_text()


def test_the_page_says_who_is_faster_and_a_picture_is_drawn(tmp_path):
    text = page(ROWS, [], 3, "A busy machine.")
    assert "Faster than `fast`: loop over groups on rnn (1.00 against 1.10)." in text
    assert "A busy machine." in text
    assert "No other method is faster" in page(ROWS[:3], [], 3)
    draw_bars(ROWS, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 5000


def test_a_curve_has_a_point_for_each_value_until_steps_are_long(monkeypatch):
    monkeypatch.setitem(AXES, "groups", (GROUP_COUNTS[:2], lambda groups: problem("mlp", 20, 4, groups)))
    points = curve("groups", repetitions=1)
    assert [point.value for point in points] == [1, 2]
    assert points[1].law / points[0].law == pytest.approx(3 / 2)
    assert points[0].law == 2 * 2 * 784 * 4 * 4
    assert growth_table(points).splitlines()[0].startswith("| groups | plain, ms | fast adds, ms |")
    monkeypatch.setattr("autospec.experiments.benchmark.growth.LONGEST_S", -1e9)
    assert [point.value for point in curve("groups", repetitions=1)] == [1]


def test_memory_is_what_a_process_holds_at_most():
    before, peak = rounds.peak_memory(problem("mlp", samples=8), PLAIN)
    assert 0 < before <= peak


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak cannot be forgotten")
def test_memory_that_was_held_before_does_not_count():
    resident = torch.ones(2**26)  # 256 MiB
    held = rounds._peak()
    del resident
    before, peak = rounds.peak_memory(problem("mlp", samples=8), PLAIN)
    assert before < held - 2**27
    assert peak < held


def test_a_round_bears_the_spectra_of_its_own_records(monkeypatch):
    step = ARMS["hooks"](problem("mlp", samples=20, width=4, groups=2))
    rounds._seconds(step, 1)
    settled = []
    monkeypatch.setattr(PendingRecords, "settle", lambda pending: settled.append(len(pending)))
    rounds._seconds(step, 3)
    assert settled == [3]


@pytest.mark.slow
def test_training_in_two_processes_is_timed_and_its_messages_are_counted():
    (cost,) = several.costs(["convolutions"], 2, blocks=2)
    assert cost.messages == 4  # what each has to say, two for the other process (of two precisions), spectra
    assert len(cost.ratio) == len(cost.clock) == len(cost.again) == 2
    assert 1 < cost.eigenvalues < cost.least
    assert cost.bytes > 4 * 4 * 4096 * 10  # in float32
    assert several.table([cost]).splitlines()[2].startswith("| convolutions |")
