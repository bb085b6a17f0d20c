import json

import numpy as np
import pytest
import torch

from autospec import AutoSpecError
from autospec.experiments.benchmark import rounds
from autospec.experiments.benchmark.arms import ARMS, LOOP, PLAIN, PLAIN_AGAIN
from autospec.experiments.benchmark.problems import SHAPES, problem
from autospec.experiments.benchmark.table import Row, markdown, write_json


@pytest.mark.parametrize("name", SHAPES)
def test_every_architecture_reconstructs_its_inputs(name):
    given = problem(name, samples=6)
    assert given.model(given.inputs).shape == given.inputs.shape
    assert given.weights
    assert set(given.group.tolist()) <= {0, 1, 2, 3}


def test_an_unknown_model_is_an_error():
    with pytest.raises(AutoSpecError, match="model='gan': allowed are mlp, rnn, lstm, bert, cnn1d, cnn2d, cnn3d"):
        problem("gan")


def test_every_arm_takes_the_same_training_step():
    """Whatever is measured beside it: after three steps all networks give the same loss."""
    torch.manual_seed(0)
    given = problem("cnn1d", samples=12, width=4)
    steps = {name: arm(given) for name, arm in ARMS.items()}
    losses = {}
    for name, step in steps.items():
        for _ in range(3):
            step()
        model = step.__closure__[[*step.__code__.co_freevars].index("model")].cell_contents
        losses[name] = float((model(given.inputs) - given.inputs).square().mean().detach())
    assert losses == pytest.approx(dict.fromkeys(losses, losses[PLAIN]), rel=1e-5)


def test_ratios_are_paired_within_rounds(monkeypatch):
    """Plain training takes 2 and 4 seconds in a round, another arm 6: 2 over the mean, plain again 2 over the first."""
    clock = {PLAIN: 2.0, PLAIN_AGAIN: 4.0, LOOP: 6.0}
    monkeypatch.setattr(rounds, "ARMS", {name: lambda given, name=name: name for name in clock})
    monkeypatch.setattr(rounds, "_seconds", lambda step, repetitions: clock[step] * repetitions)
    ratios = rounds.time_ratios(None, [LOOP], 4)
    assert {name: set(values) for name, values in ratios.items()} == {PLAIN: {2 / 3}, PLAIN_AGAIN: {2.0}, LOOP: {2.0}}


def test_the_table_marks_what_is_slower_than_the_loop(tmp_path):
    rows = [
        Row.of("mlp", "fast", np.array([1.0, 1.1, 1.2]), 1.1),
        Row.of("mlp", LOOP, np.array([1.3, 1.3, 1.3]), 1.0),
        Row.of("rnn", "fast", np.array([1.1, 1.1, 1.1]), None),
        Row.of("rnn", LOOP, np.array([1.0, 1.0, 1.0]), None),
    ]
    assert markdown(rows).splitlines() == [
        "| time over plain | mlp | rnn | geometric mean |",
        "| --- | --- | --- | --- |",
        "| fast | 1.10 (1.05-1.15) | **1.10 (1.10-1.10)** | 1.10 |",
        "| loop over groups | 1.30 (1.30-1.30) | 1.00 (1.00-1.00) | 1.14 |",
    ]
    write_json(rows, tmp_path / "rows.json")
    first = json.loads((tmp_path / "rows.json").read_text())[0]
    assert {key: first[key] for key in ("model", "method", "time_ratio", "memory_ratio")} == {
        "model": "mlp",
        "method": "fast",
        "time_ratio": pytest.approx(1.1),
        "memory_ratio": 1.1,
    }


def test_memory_is_what_a_process_holds_at_most():
    before, peak = rounds.peak_memory(problem("mlp", samples=8), PLAIN)
    assert 0 < before <= peak
