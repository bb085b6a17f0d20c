"""Pictures of any file: what they show, what they say, and one line for every mistake."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import design, record

from autospec import AutoSpecError, open_spectra
from autospec.analysis.figure_table import panel_table
from autospec.analysis.run_tables import RunTables
from autospec.figures.style import OKABE_ITO, group_colours

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(scope="module")
def spectra(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "spectra.h5"
    record(path, epochs=6, permutation_design=design([0, 3, 5]), group_sizes=[12, 6, 6])
    return open_spectra(path)


def _words(picture):
    texts = picture.findobj(lambda artist: hasattr(artist, "get_text"))
    return " ".join(" ".join(text.get_text() for text in texts).split())


def _lines(picture, colour):
    from matplotlib.colors import to_hex

    return [
        line
        for axis in picture.findobj()
        if type(axis).__name__ == "Axes"
        for line in axis.lines
        if to_hex(line.get_color()) == colour.lower()
    ]


def test_the_lines_are_of_the_mean_gradients(spectra, tmp_path):
    picture = spectra.plot(path=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    heights = [line.get_ydata() for line in _lines(picture, group_colours(["SZ", "HC"])["SZ"])]
    for layer in spectra.layers:
        expected = spectra.scaled(layer).sel(group="SZ", index=1).values
        assert any(len(height) == 6 and np.allclose(height, expected) for height in heights)


def test_a_picture_says_what_it_shows(spectra):
    words = _words(spectra.plot())
    for expected in (
        "Singular values of the mean gradient",
        "0 6 → 5",
        "2 5 → 3",
        "SZ: n = 6, HC: n = 6",
        "spectra.h5",
    ):
        assert expected in words
    assert "real data" not in words  # the file does not say
    assert "nan" not in words


def test_layers_and_groups_are_chosen_by_name_or_pattern(spectra):
    words = _words(spectra.plot(layers="2", groups="HC"))
    assert "2 5 → 3" in words
    assert "6 → 5" not in words
    assert "SZ" not in words
    assert "6 → 5" in _words(spectra.plot(layers=["[01]"], groups=["all"]))


def test_many_layers_are_shown_in_part():
    spectra = record().spectra
    spectra.layers = [*spectra.layers, *(f"more.{number}" for number in range(11))]
    from autospec.figures.spectra_pictures import _choose_layers

    chosen = _choose_layers(spectra, None)
    assert chosen.layers == spectra.layers[:12]
    assert chosen.note == "The first 12 of 13 layers are shown; choose others by layers=."


def test_many_epochs_are_thinned_and_it_is_said(spectra, monkeypatch):
    monkeypatch.setattr("autospec.figures.spectra_pictures.MOST_EPOCHS", 3)
    monkeypatch.setattr("autospec.figures.spectra_pictures.FEWEST_EPOCHS", 1)
    assert "4 of 6 recorded epochs are drawn." in _words(spectra.plot())


def test_wide_layers_are_drawn_in_part_and_it_is_said(spectra, monkeypatch):
    monkeypatch.setattr("autospec.figures.spectra_pictures.MOST_INDICES", 4)
    words = _words(spectra.plot())
    assert "Of each layer the 4 largest singular values are drawn." in words
    monkeypatch.setattr("autospec.figures.spectra_pictures.MOST_ROWS", 0)
    monkeypatch.setattr("autospec.figures.spectra_pictures.FEWEST_EPOCHS", 2)
    assert "3 of 6 recorded epochs are drawn." in _words(spectra.plot_differences("SZ", "HC"))


def test_the_p_is_the_one_of_the_table_whatever_is_drawn(spectra):
    table = panel_table([RunTables(spectra)], 0, "", 0)
    primary = table[(table.test == "permutation") & (table.per == "trajectory")].set_index("layer")
    for layers in (None, "2"):
        words = _words(spectra.plot_differences("SZ", "HC", layers=layers))
        for layer in spectra.layers if layers is None else [layers]:
            assert f"p = {primary.p_family[layer]:.3f}" in words
        assert "labels permuted over subjects" in words


def test_a_pair_can_be_turned_round(spectra):
    def shown(a, b):
        picture = spectra.plot_differences(a, b)
        meshes = picture.findobj(lambda artist: type(artist).__name__ == "QuadMesh")
        return [mesh.get_array() for mesh in meshes if mesh.get_array().size != 256]

    for one, other in zip(shown("SZ", "HC"), shown("HC", "SZ"), strict=True):
        np.testing.assert_allclose(one.filled(0), -other.filled(0))


def test_without_permutations_nothing_is_said_of_tests_but_why_there_is_none(tmp_path):
    words = _words(record().spectra.plot_differences("SZ", "HC", path=tmp_path / "a.pdf"))
    assert "SZ / HC is not tested: the file holds no permutations (the recorder's permutations=1000" in words
    assert "SZ against HC" in words
    assert "q < 0.05" not in words
    assert "nan" not in words


@pytest.mark.parametrize(
    "options",
    [{"epochs": 1}, {"leading": 2}, {"groups": ["only"]}, {"groups": [f"g{n}" for n in range(9)]}, {"width": 1}],
)
def test_unusual_files_are_drawn(options, tmp_path):
    spectra = record(**options).spectra
    spectra.plot(path=tmp_path / "a.png")
    if len(spectra.group_names) > 2:
        spectra.plot_differences(*spectra.group_names[1:3], path=tmp_path / "b.png")
    assert spectra.plot()._repr_png_().startswith(b"\x89PNG")


def test_more_groups_than_the_palette_has_keep_colours_of_their_own():
    names = [f"g{number}" for number in range(12)]
    assert len(set(group_colours(names).values())) == 12
    assert tuple(group_colours(names[:7]).values()) == OKABE_ITO


def test_the_pictures_of_the_readme_are_drawn(spectra):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    pictures = next(block for block in blocks if "spectra.plot(" in block)
    assert pictures.count("spectra.plot") == 2
    exec(pictures.replace("hidden.*", "*"), {"spectra": spectra})  # the layers here are 0 and 2


MISTAKES = {
    "layer": (lambda file: file.plot(layers="nope"), "has no layer 'nope'; it has 0, 2"),
    "group": (lambda file: file.plot(groups=["SZ", "nope"]), "has no group 'nope'; it has all, SZ, HC"),
    "pair": (lambda file: file.plot_differences("SZ", "nope"), "has no group 'nope'; it has all, SZ, HC"),
    "same": (lambda file: file.plot_differences("SZ", "SZ"), "SZ and SZ share samples; compare two groups"),
    "all": (lambda file: file.plot_differences("all", "SZ"), "all and SZ share samples; compare two groups"),
    "ending": (lambda file: file.plot(path="a.txt"), r"a\.txt: no kind of picture ends so; take \.png"),
    "folder": (lambda file: file.plot(path="/nowhere/a.png"), "cannot write /nowhere/a.png: No such file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(spectra, mistake):
    ask, expected = MISTAKES[mistake]
    with pytest.raises(AutoSpecError, match=expected) as raised:
        ask(spectra)
    assert "\n" not in str(raised.value)


def test_what_was_not_recorded_cannot_be_drawn():
    spectra = record(statistics=("activation",)).spectra
    for ask in (spectra.plot, lambda: spectra.plot_differences("SZ", "HC")):
        with pytest.raises(AutoSpecError, match="gradient spectra of layer '0' were not recorded"):
            ask()


def test_drawing_needs_no_torch_and_leaves_the_users_backend(spectra):
    code = (
        "import sys, matplotlib; matplotlib.use('svg'); import autospec; "
        f"spectra = autospec.open_spectra({str(spectra.path)!r}); spectra.plot(); spectra.summary(); print(spectra); "
        "assert not {'torch', 'hydra', 'omegaconf', 'matplotlib.pyplot'} & set(sys.modules); "
        "assert matplotlib.get_backend() == 'svg'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
