"""Pictures of what is recorded on request, from a small recurrent network."""

import torch
from torch import nn

from autospec import SpectralRecorder
from autospec.figures.requested import draw_ranks, draw_subspaces, draw_tied


def test_positions_ranks_and_subspaces_are_drawn(tmp_path):
    model, inputs = nn.RNN(3, 4, batch_first=True), torch.randn(6, 5, 3)
    statistics = ("gradient", "activation", "adjoint", "rank", "tied", "subspace")
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=statistics)
    for _ in range(3):
        with recorder.batch([0, 1, 0, 1, 1, 0]):
            model(inputs)[0].square().sum().backward()
        recorder.end_epoch()
    spectra = recorder.spectra
    layers = [(name, spectra[name]) for name in spectra.layers]
    assert layers[0][1]["tied_gradient"].dims == ("epoch", "group", "position", "index")
    draw_tied(layers, "a footer", tmp_path / "tied.png")
    draw_ranks(layers, "a footer", tmp_path / "rank.png")
    assert (tmp_path / "tied.png").stat().st_size > 10_000
    draw_subspaces(layers, [("a", "b")], "a footer", tmp_path / "subspace.png")
    assert (tmp_path / "subspace.png").stat().st_size > 10_000
    assert (tmp_path / "rank.png").stat().st_size > 10_000
