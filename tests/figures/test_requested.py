"""Pictures of what is recorded on request, from a small recurrent network."""

import torch
from torch import nn

from autospec import SpectralRecorder
from autospec.figures.requested import draw_ranks, draw_subspaces, draw_tied


def test_the_bound_of_a_linear_chain_is_drawn_where_there_is_one(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr("autospec.figures.requested._save", lambda figure, path: drawn.update({path: figure}))
    for name, between in (("chain", nn.Identity()), ("broken", nn.ReLU())):
        model = nn.Sequential(nn.Linear(6, 5), between, nn.Linear(5, 2))
        recorder = SpectralRecorder(model, groups=["a", "b"], statistics=("gradient", "rank"))
        with recorder.batch([0, 1] * 10):
            model(torch.randn(20, 6)).square().sum().backward()
        recorder.end_epoch()
        draw_ranks([(layer, recorder.spectra[layer]) for layer in recorder.layers], "", name)
    labels = {name: [line.get_label() for line in figure.axes[0].lines] for name, figure in drawn.items()}
    assert "chain" in labels["chain"]
    assert "chain" not in labels["broken"]
    assert ["linear chain" in drawn[name].get_supxlabel() for name in ("chain", "broken")] == [True, False]


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
