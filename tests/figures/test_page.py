from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from autospec.figures import page
from autospec.figures.contents import DifferencePanel, LayerTitle, Provenance, SpectraPanel
from autospec.figures.difference_panel import draw_differences
from autospec.figures.page import draw_figure, draw_panel
from autospec.figures.spectra_panel import draw_layer, front_indices
from autospec.figures.style import OKABE_ITO, Frame, group_colours, shade

EPOCHS, WIDTH = 12, 8


def _provenance(simulated=False):
    return Provenance("run-1", "a source", simulated, 7, {"SZ": 20.0, "HC": 30.0})


def _spectra(letter="A", simulated=False, layers=1):
    titles = tuple(LayerTitle(f"layer.{number}", 20, 8) for number in range(layers))
    rows = [
        (title.name, epoch, group, index, value := 10.0 ** (-index) * (epoch + 1), value, 3e-6, 3e-6)
        for title in titles
        for epoch in range(EPOCHS)
        for group in ("all", "SZ", "HC")
        for index in range(1, WIDTH + 1)
    ]
    columns = ["layer", "epoch", "group", "index", "value", "scaled", "floor", "scaled_floor"]
    labels = {"SZ": "SZ", "HC": "HC"}
    frame = pd.DataFrame(rows, columns=columns)
    return SpectraPanel(
        letter, "Autoencoder · width 8 · ReLU", titles, ("SZ", "HC"), labels, frame, _provenance(simulated)
    )


def _differences(letter="G", counts=20):
    title = LayerTitle("layer.0", 20, 8)
    keys = {"layer": title.name, "group_a": "SZ", "group_b": "HC"}
    grid = [(epoch, index, np.nan if index > 5 else 0.5) for epoch in range(EPOCHS) for index in range(1, WIDTH + 1)]
    tests = pd.concat(
        [
            pd.DataFrame({"per": "epoch", "at": range(EPOCHS), "n": 5, "p": 0.01, "median_log2_ratio": 0.5}),
            pd.DataFrame(
                {"per": "index", "at": range(1, 9), "n": [counts] * 5 + [2, 1, 0], "p": 0.9, "median_log2_ratio": 0.5}
            ),
        ]
    )
    cosines = pd.DataFrame({"epoch": range(EPOCHS), "cosine": np.linspace(1, -1, EPOCHS), "cancellation": 0.5})
    return DifferencePanel(
        letter=letter,
        title="SZ against HC",
        layers=(title,),
        pairs=(("SZ", "HC"),),
        ratios=pd.DataFrame(grid, columns=["epoch", "index", "log2_ratio"]).assign(**keys),
        tests=tests.assign(**keys),
        cosines=cosines.assign(**keys),
        provenance=_provenance(),
    )


def _texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(page, "save_picture", lambda figure, paths: figures.append(figure))
    monkeypatch.setattr(page, "save_pages", lambda pages, paths: figures.extend(pages))
    return figures


def test_pictures_are_written_in_every_format(tmp_path):
    paths = [tmp_path / "figure_1.pdf", tmp_path / "figure_1.png"]
    draw_figure(1, "a title", [_spectra(), _spectra("B"), _differences()], paths)
    draw_panel(_differences(), tmp_path / "figure_1_G.png")
    assert paths[0].read_bytes().startswith(b"%PDF")
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure_1.pdf", "figure_1.png", "figure_1_G.png"]


def test_a_figure_says_what_it_is(drawn):
    draw_figure(1, "a title", [_spectra(), _differences()], [])
    text = " ".join(_texts(drawn[0]).split())
    for expected in (
        "Figure 1",
        "a title",
        "width 8",
        "Real data: a source",
        "SZ: n = 20",
        "Seed 7",
        "epoch",
    ):
        assert expected in text
    assert "descriptive, not calibrated" in text
    assert len([legend for legend in drawn[0].findobj() if type(legend).__name__ == "Legend"]) == 1


def test_groups_of_few_people_are_flagged(drawn, tmp_path):
    panel = _spectra()
    few = replace(panel, provenance=replace(panel.provenance, min_group=25))
    draw_panel(few, tmp_path / "a.png")
    assert "SZ: n = 20 (fewer than 25), HC: n = 30." in " ".join(_texts(drawn[0]).split())


def test_simulated_data_are_called_simulated(drawn, tmp_path):
    draw_panel(_spectra(simulated=True), tmp_path / "a.png")
    assert "SIMULATED DATA" in _texts(drawn[0])


def test_values_below_the_noise_floor_are_not_drawn():
    panel = _spectra()
    axis = Figure().subplots()
    draw_layer(panel, panel.layers[0], axis)
    heights = np.concatenate([line.get_ydata() for line in axis.lines])
    assert np.nanmin(heights) > 3e-6
    assert np.isnan(heights).any()
    assert axis.get_yscale() == "log"


def test_groups_are_told_apart_by_hue_and_indices_by_shade():
    colours = group_colours(["SZ", "HC", "other"])
    assert len(set(colours.values())) == 3
    assert set(colours.values()) <= set(OKABE_ITO)
    shades = [shade(OKABE_ITO[0], place, 3) for place in range(3)]
    assert sum(shades[0]) < sum(shades[1]) < sum(shades[2])
    assert front_indices(32) == (1, 4, 8)
    assert front_indices(4) == (1, 2, 4)
    assert front_indices(1) == (1,)


def test_bars_over_too_few_epochs_are_absent():
    figure = Figure(figsize=(3.5, 2))
    (part,) = figure.subfigures(1, 1, squeeze=False).flat
    draw_differences(_differences(), part, Frame(3.5, 2.0), 1)
    bars = [bar for axis in part.axes for container in axis.containers for bar in container]
    assert len(bars) == 5


def test_cells_that_cannot_be_compared_are_masked():
    figure = Figure(figsize=(3.5, 2))
    (part,) = figure.subfigures(1, 1, squeeze=False).flat
    draw_differences(_differences(), part, Frame(3.5, 2.0), 1)
    mesh = next(
        m for axis in part.axes for m in axis.collections if m.get_array() is not None and m.get_array().size == 96
    )
    assert mesh.get_array().mask.sum() == 3 * EPOCHS


def _parts(panel):
    figure = Figure(figsize=(3.5, 2))
    (part,) = figure.subfigures(1, 1, squeeze=False).flat
    draw_differences(panel, part, Frame(3.5, 2.0), 1)
    return part


def test_a_single_epoch_that_differs_has_a_mark():
    """With few tested epochs and with many; a line of one point would have no length."""
    for epochs in (10, 300):
        panel = _differences()
        p = [0.01 if epoch == 4 else 0.9 for epoch in range(epochs)]
        tests = pd.DataFrame({"per": "epoch", "at": range(epochs), "n": 5, "p": p, "median_log2_ratio": 0.5})
        keys = {"layer": "layer.0", "group_a": "SZ", "group_b": "HC"}
        part = _parts(replace(panel, tests=tests.assign(**keys)))
        marks = [line for axis in part.axes for line in axis.lines if line.get_marker() == "o"]
        assert [list(line.get_xdata()) for line in marks] == [[4]]
        assert marks[0].get_markersize() > 1


def test_a_verdict_and_the_names_of_pairs_are_drawn():
    panel = _differences()
    panel = replace(panel, verdicts={("layer.0", "SZ", "HC"): "p = 0.020, SZ larger"})
    assert "p = 0.020, SZ larger" in _texts(_parts(panel))


def test_the_legend_says_what_dark_means(drawn, tmp_path):
    draw_panel(replace(_differences(), paper=False, left_out=("a reason.",)), tmp_path / "a.png")
    text = " ".join(_texts(drawn[0]).split())
    assert "q < 0.05 " in text
    assert "a reason." in text
    assert "association with the label" in text
    draw_panel(_differences(), tmp_path / "b.png")
    assert "paper's p < 0.05 (descriptive)" in _texts(drawn[1])


def _seeded(seeds):
    panel = _spectra()
    frames = [panel.frame.assign(seed=place, scaled=panel.frame["scaled"] * (1 + place)) for place in range(seeds)]
    return replace(panel, frame=pd.concat(frames), seeds=seeds)


def test_five_seeds_are_a_mean_and_a_band():
    axis = Figure().subplots()
    panel = _seeded(5)
    draw_layer(panel, panel.layers[0], axis)
    bands = [band for band in axis.collections if band.get_alpha() == 0.25]
    assert len(bands) == 2 * 3  # groups and indices
    factors = np.log(np.arange(1, 6))
    first = panel.frame[(panel.frame.group == "SZ") & (panel.frame["index"] == 1) & (panel.frame.seed == 0)]
    expected = first["scaled"].to_numpy() * np.exp(factors.mean())
    assert any(len(line.get_ydata()) == EPOCHS and np.allclose(line.get_ydata(), expected) for line in axis.lines)
    low, high = bands[0].get_paths()[0].vertices[:, 1].min(), bands[0].get_paths()[0].vertices[:, 1].max()
    assert low == pytest.approx(first["scaled"].min() * np.exp(factors.mean() - factors.std(ddof=1)))
    assert high == pytest.approx(first["scaled"].max() * np.exp(factors.mean() + factors.std(ddof=1)))


def test_fewer_seeds_are_lines():
    axis = Figure().subplots()
    panel = _seeded(4)
    draw_layer(panel, panel.layers[0], axis)
    assert not [band for band in axis.collections if band.get_alpha() == 0.25]
    assert len(axis.lines) == WIDTH + 2 * 3 * 4  # of the whole batch, then groups, indices and seeds


def test_the_footer_says_how_seeds_are_shown(drawn, tmp_path):
    for seeds, text in ((5, "5 seeds: mean and standard deviation"), (4, "4 seeds: a line for each")):
        draw_panel(_seeded(seeds), tmp_path / "a.png")
        assert text in " ".join(_texts(drawn[-1]).split())
