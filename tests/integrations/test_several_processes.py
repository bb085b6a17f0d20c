"""Lightning, Accelerate and the Trainer in two processes: the file is that of one process on the same batches."""

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from integrations.several import EPOCHS, GROUPS, RATE, SHARDS, Columns, Regression, Words, data, losses, network
from ranks import assert_same_file

from autospec import SpectralRecorder

pytestmark = pytest.mark.slow
PROGRAM = str(Path(__file__).with_name("several.py"))
PATIENCE_S = 300
LAUNCHES = {
    "lightning": [sys.executable, PROGRAM],
    # `accelerate launch --cpu --num_processes 2` starts one process, and leaves several to MPI
    "accelerate": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", PROGRAM],
    "trainer": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", PROGRAM],
}
CASES = {
    # shards, batches to a step
    ("lightning", "padded"): ("padded", 1),
    ("lightning", "uneven"): ("uneven", 2),
    ("lightning", "resumed"): ("padded", 1),
    ("accelerate", "padded batches"): ("padded batches", 1),
    ("accelerate", "uneven batches"): ("uneven batches", 2),
    ("trainer", "padded batches"): ("padded batches", 2),
    ("trainer", "uneven batches"): ("uneven batches", 1),
    ("trainer", "resumed"): ("padded batches", 1),
}


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """A function of a library: the folder of what two processes of it wrote, and what they said."""
    done = {}

    def of(library):
        if library not in done:
            folder = tmp_path_factory.mktemp(library)
            settings = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
            settings.pop("MASTER_PORT", None)
            command = [*LAUNCHES[library], library, str(folder)]
            ended = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=PATIENCE_S, env=settings, cwd=folder
            )
            assert ended.returncode == 0, ended.stderr[-3000:]
            done[library] = folder, ended.stderr
        return done[library]

    return of


def _train_whole(path, shards, accumulated, library):
    """Train on all processes' samples in one; each sample counts what it counts in the average of means."""
    model = network() if library == "accelerate" else Regression()
    net = model if library == "accelerate" else model.net
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    inputs, targets, groups = data()
    batches = list(zip(*shards, strict=True))
    with SpectralRecorder(model, path, groups=GROUPS, statistics=("gradient", "activation")) as recorder:
        for _ in range(EPOCHS):
            for place, shares in enumerate(batches):
                in_window = min(accumulated, len(batches) - place // accumulated * accumulated)
                divisor = in_window if library == "trainer" else accumulated
                chosen = torch.tensor([*chain(*shares)])
                weight = torch.cat([torch.full((len(own),), 1 / (2 * len(own) * divisor)) for own in shares]).double()
                with recorder.batch(groups[chosen], weight=weight, share=float(weight.sum())):
                    (losses(net, inputs[chosen], targets[chosen]) * weight).sum().backward()
                if (place + 1) % accumulated == 0 or place + 1 == len(batches):
                    optimizer.step()
                    optimizer.zero_grad()
            recorder.end_epoch()
    return list(net.parameters())


@pytest.mark.xdist_group("trainer")
def test_words_are_counted_over_all_processes(launched, tmp_path):
    folder, _ = launched("trainer")
    model, rows = Words(), Columns(words=True).rows
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    batches = [[*chain(*shares)] for shares in zip(*SHARDS["padded batches"], strict=True)]
    with SpectralRecorder(
        model, tmp_path / "whole.h5", groups=GROUPS, statistics=("gradient", "activation")
    ) as recorder:
        for _ in range(EPOCHS):
            for window in (batches[:2], batches[2:]):
                number = sum(int((rows[place]["labels"] != -100).sum()) for batch in window for place in batch)
                for batch in window:
                    words, labels = (torch.stack([rows[i][key] for i in batch]) for key in ("input_ids", "labels"))
                    items = (labels != -100).sum(1)
                    groups = torch.tensor([rows[place]["group"] for place in batch])
                    with recorder.batch(groups, weight=items, share=float(items.sum()) / number):
                        model(words, labels, num_items_in_batch=number)["loss"].backward()
                optimizer.step()
                optimizer.zero_grad()
            recorder.end_epoch()
    for found, expected in zip(torch.load(folder / "words_0.pt"), model.parameters(), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert_same_file(folder / "words.h5", tmp_path / "whole.h5", leave_out=("training/loss",))


# the tests of one library share what it wrote
@pytest.mark.parametrize(
    ("library", "name"), [pytest.param(*case, marks=pytest.mark.xdist_group(case[0])) for case in CASES]
)
def test_the_file_is_that_of_one_process(library, name, launched, tmp_path):
    folder, said = launched(library)
    shards, accumulated = CASES[library, name]
    weights = _train_whole(tmp_path / "whole.h5", SHARDS[shards], accumulated, library)
    for rank in range(2):
        for found, expected in zip(torch.load(folder / f"{name}_{rank}.pt"), weights, strict=True):
            assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert_same_file(folder / f"{name}.h5", tmp_path / "whole.h5", leave_out=("training/loss",))
    assert "AutoSpec" not in said
