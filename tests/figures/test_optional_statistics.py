"""Pictures of what is recorded on request, from a small recurrent network."""

import numpy as np
import pytest
import torch
from torch import nn

from autospec import SpectralRecorder
from autospec.figures.optional_statistics import draw_ranks, draw_subspaces, draw_tied


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, by the path that they were to be saved at."""
    figures = {}
    monkeypatch.setattr(
        "autospec.figures.optional_statistics.save_picture",
        lambda figure, paths: figures.update(dict.fromkeys(paths, figure)),
    )
    return figures


@pytest.fixture(scope="module")
def recurrent():
    """Names and statistics of a recurrent network's weights, of two groups over three epochs."""
    model, inputs = nn.RNN(3, 4, batch_first=True), torch.randn(6, 5, 3)
    statistics = ("gradient", "activation", "adjoint", "rank", "tied", "subspace")
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=statistics)
    for _ in range(3):
        with recorder.batch([0, 1, 0, 1, 1, 0]):
            model(inputs)[0].square().sum().backward()
        recorder.end_epoch()
    return [(name, recorder.spectra[name]) for name in recorder.spectra.layers]


def test_the_bound_of_a_linear_chain_is_drawn_where_there_is_one(drawn):
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


def test_positions_ranks_and_subspaces_are_drawn(recurrent, tmp_path):
    draw_tied(recurrent, "a footer", tmp_path / "tied.png")
    draw_ranks(recurrent, "a footer", tmp_path / "rank.png")
    draw_subspaces(recurrent, [("a", "b")], "a footer", tmp_path / "subspace.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in ("tied", "rank", "subspace"))


def test_the_picture_of_positions_is_of_the_last_record_by_layer_and_group(recurrent, drawn):
    draw_tied(recurrent, "a footer", "tied")
    panels = [axis for axis in drawn["tied"].axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["all", "a", "b"] * len(recurrent)
    shown = [np.asarray(axis.images[0].get_array()) for axis in panels]
    expected = [
        values["tied_gradient"].isel(epoch=-1, group=group).values.T for _, values in recurrent for group in range(3)
    ]
    for found, spectra in zip(shown, expected, strict=True):
        assert found.shape == spectra.shape
        large = spectra > spectra.max() * 1e-3
        assert (found[large] == spectra[large]).all()


def test_a_layer_that_got_no_gradient_is_drawn_empty_without_a_warning(recurrent, drawn):
    name, values = recurrent[0]
    draw_tied([(name, values.assign(tied_gradient=values["tied_gradient"] * np.nan))], "a footer", "tied")
    assert np.ma.masked_invalid(drawn["tied"].axes[0].images[0].get_array()).mask.all()


def test_lines_of_ranks_are_the_recorded_ones_group_by_group(recurrent, drawn):
    draw_ranks(recurrent, "a footer", "rank")
    for axis, (_, values) in zip(drawn["rank"].axes, recurrent, strict=True):
        expected = [
            values[f"rank_{kind}"].isel(group=group).values
            for group in range(3)
            for kind in ("numerical", "effective", "bound")
        ]
        assert np.array_equal([line.get_ydata() for line in axis.lines], expected)


def test_more_groups_than_colours_are_told_apart_by_their_dashes(recurrent, drawn):
    name, values = recurrent[0]
    names = [f"group {place}" for place in range(16)]
    draw_ranks([(name, values.isel(group=[0] * 16).assign_coords(group=names))], "a footer", "rank")
    lines = [line for line in drawn["rank"].axes[0].lines if line.get_label() in names]
    assert [line.get_label() for line in lines] == names
    assert len({(line.get_color(), str(line._dash_pattern)) for line in lines}) == 16


def test_lines_of_angles_are_the_largest_in_degrees(recurrent, drawn):
    draw_subspaces(recurrent, [("a", "b")], "a footer", "subspace")
    for axis, (_, values) in zip(drawn["subspace"].axes[::2], recurrent, strict=True):
        angles = values["subspace_groups"].sel(group="a", other_group="b").isel(angle=-1)
        expected = [np.degrees(angles.sel(side=side).values) for side in ("output", "input")]
        assert np.allclose([line.get_ydata() for line in axis.lines], expected, equal_nan=True)
