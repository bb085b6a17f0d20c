"""Every figure fits a printed page and can be read there, whatever its layers and groups are called."""

import re
import zlib
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from autospec.figures.contents import DifferencePanel, LayerTitle, Provenance, SpectraPanel
from autospec.figures.data_facts import DataFacts
from autospec.figures.difference_panel import FADED
from autospec.figures.footer import MOST_LINES, footer_lines
from autospec.figures.page import figure_pages, panel_picture
from autospec.figures.saving import save_pages
from autospec.figures.style import COLUMN_IN, FLOOR_GREY, LEFT_OUT_GREY, PAGE_IN, SMALLEST_PT, TALLEST_IN, print_style

GROUPS = ("HC/men", "HC/women", "SZ/men", "SZ/women")
PAIRS = (("SZ/men", "HC/men"), ("SZ/women", "HC/women"))
NAMES = ("embedding", "bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense", "head")
EPOCHS, WIDTH = (0, 1, 2, 3), 12
REASON = (
    "SZ/men / HC/men and SZ/women / HC/women are not tested: diagnosis is what the network is trained to tell apart, "
    "so weights depend on the compared labels; only retraining with permuted labels would test it, which was left out."
)
IMBALANCE = {"covariate": "age", "one": "HC/men", "other": "SZ/men", "standardised": -0.41, "adjusted": True}
FACTS = DataFacts(
    study="my_study", adjusted_for=["age", "sex", "head_size"], motion_cut=0.5, imbalances=[IMBALANCE], shape=[150, 53]
)
PROVENANCE = Provenance(
    "cobre_timeseries-bert-autoencoding-relu-w32-0123456789",
    "component time-courses of my_study/cohort.h5",
    False,
    314159,
    dict.fromkeys(GROUPS, 51.0),
    15,
    "4 of 17 layers are shown (embedding, bert.encoder.layer.0.attention.self.query, head); the table holds all.",
    epochs=80,
    facts=FACTS,
)


def _titles(layers):
    return tuple(LayerTitle(NAMES[place] if place < 4 else f"layer.{place}", 128, 32) for place in range(layers))


def _spectra(letter, layers=4):
    rows = pd.MultiIndex.from_product(
        [[title.name for title in _titles(layers)], EPOCHS, ["all", *GROUPS], range(1, WIDTH + 1)],
        names=["layer", "epoch", "group", "index"],
    ).to_frame(index=False)
    scaled = 10.0 ** (-rows["index"] / 2) * (1 + rows["epoch"])
    frame = rows.assign(value=scaled, scaled=scaled, floor=3e-7, scaled_floor=3e-7)
    labels = dict(zip(GROUPS, GROUPS, strict=True))
    title = "Autoencoder · width 32 · sigmoid"
    return SpectraPanel(letter, title, _titles(layers), GROUPS, labels, frame, PROVENANCE, pairs=PAIRS)


def _differences(letter, layers=4, pairs=PAIRS, left_out=()):
    keys = pd.MultiIndex.from_product(
        [[title.name for title in _titles(layers)], range(len(pairs)), EPOCHS, range(1, WIDTH + 1)],
        names=["layer", "pair", "epoch", "index"],
    ).to_frame(index=False)
    keys = keys.assign(**{f"group_{side}": [pairs[i][n] for i in keys["pair"]] for n, side in enumerate("ab")})
    ratios = keys.assign(log2_ratio=np.where(keys["index"] > WIDTH - 2, np.nan, 0.5))
    tests = [
        keys.drop_duplicates(["layer", "pair", per]).assign(per=per, at=lambda part, per=per: part[per])
        for per in ("epoch", "index")
    ]
    tests = pd.concat(tests).assign(n=10, p=0.01, median_log2_ratio=0.5)
    cosines = keys.drop_duplicates(["layer", "pair", "epoch"]).assign(cosine=0.5, cancellation=0.8)
    verdicts = {(title.name, *pair): f"p = 0.012, {pair[0]} larger" for title in _titles(layers) for pair in pairs}
    names = {pair: f"{pair[0]} (n = 51) against {pair[1]} (n = 43)" for pair in pairs}
    title = f"{names[pairs[0]] if len(pairs) == 1 else 'Differences'} · Autoencoder · width 32 · sigmoid"
    return DifferencePanel(
        letter, title, _titles(layers), pairs, ratios, tests, cosines, PROVENANCE, False, verdicts, left_out, "", names
    )


def _figure(layers, pairs=PAIRS):
    panels = [_spectra(letter, layers) for letter in "ABCDEF"]
    panels += [_differences("G", layers, pairs), _differences("H", layers, pairs, (REASON,))]
    return figure_pages(6, "component time-courses, BERT", panels, "figure_6_caption.md")


@pytest.fixture(scope="module")
def pages():
    """The pages of figure 6's shape, of figure 4's, of one with many layers, and two panels by themselves."""
    with print_style():
        one_column = [panel_picture(_spectra("A"), COLUMN_IN, "figure_6_caption.md")]
        one_column.append(panel_picture(_differences("H", 2, PAIRS[:1], (REASON,)), COLUMN_IN, "figure_6_caption.md"))
        made = {"6": _figure(4), "4": _figure(2, PAIRS[:1]), "one column": one_column}
        for figures in made.values():
            for figure in figures:
                figure.draw_without_rendering()
        yield made


def _texts(figure):
    figure.draw_without_rendering()  # saving to a PDF has laid it out at another resolution
    beyond = _beyond_the_axes(figure)
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in found if _extent(text).width > 0 and text not in beyond]


def _beyond_the_axes(figure):
    """Labels of ticks outside their axis's limits, which exist but are not drawn."""
    beyond = set()
    for axis in (axis for axes in figure.findobj(Axes) for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        beyond |= {tick.label1 for tick in ticks if not low - 1e-9 <= tick.get_loc() <= high + 1e-9}
    return beyond


def _extent(text):
    return text.get_window_extent()


def test_a_figure_takes_one_page_or_two_of_the_size_of_a_journals(pages):
    assert [len(pages[name]) for name in ("4", "6")] == [1, 2]
    for name in ("4", "6"):
        for page in pages[name]:
            width, height = page.get_size_inches()
            assert width == PAGE_IN
            assert height <= TALLEST_IN + 1e-9
    assert pages["one column"][0].get_size_inches()[0] == COLUMN_IN


def test_no_text_is_smaller_than_6_points_in_the_pdf(pages, tmp_path):
    """As the file says it, not as we ask for it; raised exponents and lowered indices would be smaller."""
    for name, figures in pages.items():
        save_pages(figures, [tmp_path / f"{name}.pdf"])
        content = (tmp_path / f"{name}.pdf").read_bytes()
        streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
        drawn = b"".join(zlib.decompress(stream) for stream in streams if stream[:1] == b"\x78")
        sizes = {float(size) for size in re.findall(rb"/F\d+ ([\d.]+) Tf", drawn)}
        assert sizes
        assert min(sizes) >= SMALLEST_PT, name
        assert content.count(b"/Type /Page ") == len(figures)


def test_no_text_is_clipped(pages):
    for name, figures in pages.items():
        for figure in figures:
            for text in _texts(figure):
                box, page = _extent(text), figure.bbox
                assert box.x0 >= page.x0 - 0.5 and box.x1 <= page.x1 + 0.5, (name, text.get_text())
                assert box.y0 >= page.y0 - 0.5 and box.y1 <= page.y1 + 0.5, (name, text.get_text())


def test_no_text_lies_over_another(pages):
    for name, figures in pages.items():
        for figure in figures:
            boxes = [(text.get_text(), _extent(text).padded(-0.8)) for text in _texts(figure)]
            clashes = [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)]
            assert not clashes, (name, clashes)


def test_a_footer_has_five_lines_at_most_and_names_the_caption(pages):
    for panels, width in (([_spectra("A")], COLUMN_IN), ([_spectra("A"), _differences("G")], PAGE_IN)):
        lines = footer_lines(panels, width, "figure_6_caption.md")
        assert len(lines) <= MOST_LINES
        assert "figure_6_caption.md" in " ".join(lines)


def test_a_footer_says_what_makes_the_picture_true():
    for width in (COLUMN_IN, PAGE_IN):
        text = " ".join(footer_lines([_differences("G")], width, "figure_6_caption.md"))
        for needed in (
            "Real data: component time-courses of my_study/cohort.h5",
            "ADJUSTED: age, sex and head_size taken out",
            "age +0.41 (SZ/men less HC/men, taken out)",
        ):
            assert needed in text
    for needed in ("150 × 53 volumes × components", "motion cut 0.5", "80 epochs", "seed 314159"):
        assert needed in text


def test_many_layers_go_to_further_pages(monkeypatch):
    monkeypatch.setattr("autospec.figures.page.TALLEST_IN", 4.0)
    with print_style():
        pages = figure_pages(6, "title", [_spectra("A", 12), _differences("G", 8, PAIRS[:1])], "c")
    assert len(pages) == 4
    assert max(page.get_size_inches()[1] for page in pages) <= 4.0 + 1e-9
    texts = [text.get_text() for page in pages for text in page.findobj(Text)]
    for place, title in enumerate(_titles(12)):
        assert texts.count(str(title)) == 1 + (place < 8)


def test_noise_and_what_cannot_be_compared_can_be_told_apart():
    page, noise, left_out = 1.0, to_rgb(FLOOR_GREY)[0], to_rgb(LEFT_OUT_GREY)[0]
    assert all(one - other > 0.08 for one, other in pairwise((page, noise, left_out)))
    assert noise - left_out > 0.15


def _labels(figure):
    (legend,) = figure.findobj(lambda artist: type(artist).__name__ == "Legend")
    return [text.get_text() for text in legend.get_texts()]


def test_legends_explain_what_is_drawn_alone(pages):
    spectra, differences = pages["6"]
    assert _labels(spectra) == [*GROUPS, "whole batch, every index", "noise of rounding"]
    assert _labels(differences) == [
        "first group larger",
        "second group larger",
        "cannot be compared",
        "cosine of gradients",
        "cancellation (0: opposite)",
        "q < 0.05",
    ]
    panel = _differences("G", 1, PAIRS[:1])
    whole = panel.ratios.assign(log2_ratio=0.5)
    bare = replace(panel, ratios=whole, tests=panel.tests.assign(p=0.9))
    assert _labels(panel_picture(bare, COLUMN_IN, "c")) == [
        "SZ/men larger",
        "HC/men larger",
        "cosine of gradients",
        "cancellation (0: opposite)",
    ]


def test_a_margin_is_pale_where_nearly_all_cells_are_grey():
    panel = _differences("G", 1, PAIRS[:1])
    few = panel.ratios.assign(
        log2_ratio=np.where((panel.ratios["index"] > 4) & (panel.ratios["epoch"] > 0), np.nan, 0.5)
    )
    tests = panel.tests.assign(p=0.9, median_log2_ratio=np.where(panel.tests["at"] > 4, 9.0, 0.5))
    for share, expected in ((few, 0), (few[(few["index"] <= 4) | (few["epoch"] != 0)], WIDTH - 4)):
        figure = panel_picture(replace(panel, ratios=share, tests=tests), COLUMN_IN, "c")
        bars = [
            bar
            for axis in figure.findobj()
            if type(axis).__name__ == "Axes"
            for bars in axis.containers
            for bar in bars
        ]
        faded = [bar for bar in bars if np.allclose(bar.get_facecolor()[:3], to_rgb(FADED), atol=0.01)]
        assert len(faded) == expected
