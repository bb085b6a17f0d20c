"""docs/spectra-file.md lists every dataset that a recorder writes, with the number of its dimensions."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from autospec import SpectralRecorder
from autospec.store.permuted_pairs import PairPermutations, PermutationDesign

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "spectra-file.md").read_text()


class Everything(nn.Module):
    """A table that is its own head, around a linear chain with a bottleneck."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 5), nn.Linear(5, 9, bias=False)
        self.chain = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2), nn.Linear(2, 5))
        self.head.weight = self.words.weight

    def forward(self, indices):
        return self.head(self.chain(self.words(indices)))


def _datasets(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item.ndim} if isinstance(item, h5py.Dataset) else {}))
    return found


def _documented():
    """Patterns of paths and the number of dimensions, where the table gives them."""
    rows = re.findall(r"^\| (`/.*?) \| (.*?) \|", PAGE, re.MULTILINE)
    for paths, shape in rows:
        base = ""
        for path in re.findall(r"`([^`]+)`", paths):
            base = path if path.startswith("/") else base.rsplit("/", path.count("/"))[0] + path[1:]
            known = re.fullmatch(r"\(([\w, ]+),?\)", shape)
            pattern = re.escape(base[1:]).replace("<layer>", "[^/]+").replace("<module>", "[^/]+").replace("…", ".+")
            yield pattern, len(known[1].rstrip(",").split(",")) if known else None


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
def test_every_dataset_is_in_the_table(tmp_path, engine):
    members = np.array([[1, 1, 2, 2], [1, 2, 1, 2]], dtype=np.int8)
    pair = PairPermutations("a", "b", (), members)
    everything = {
        "statistics": ("gradient", "activation", "adjoint", "rank", "tied"),
        "permutation_design": PermutationDesign((pair,), {}, np.arange(4), (0,)),
    }
    path = tmp_path / "spectra.h5"
    options = everything if engine == "hooks" else {"engine": engine}
    model = Everything()
    with SpectralRecorder(model, path, groups=["a", "b"], group_sizes=[4, 2, 2], **options) as recorder:
        with recorder.batch([0, 0, 1, 1]) as batch:
            losses = model(torch.randint(9, (4, 3))).square().mean((1, 2))
            losses.mean().backward()
            batch.losses(losses)
        recorder.end_epoch(loss=1.0, metric=1.0, validation_loss=1.0, validation_metric=1.0)
    documented = list(_documented())
    found = _datasets(path)
    if engine == "hooks":
        expected = {"layers/chain.0/rank/chain", "layers/words/own_rows", "layers/words/uses/head/activation"}
        assert {*expected, "layers/words/tied/gradient", "null/pair"} <= set(found)
    for name, dimensions in found.items():
        shapes = [shape for pattern, shape in documented if re.fullmatch(pattern, name)]
        assert shapes, f"{name} is not in docs/spectra-file.md"
        assert shapes[0] in (None, dimensions) or name.startswith("null/"), name
