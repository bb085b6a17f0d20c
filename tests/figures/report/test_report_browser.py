"""The report as a browser shows it: drawn without a network, without a complaint, and answering to its controls."""

import json

import numpy as np
import pytest
from browser import chromium, open_tab
from PIL import Image
from small_runs import design, record

from autospec.figures.report.page import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium"),
]

GROUPS = ("<script>alert(1)</script>", r"$\frac{1}{2}$ & %{x}")
DRAWN = "document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length > 10"
CLOUD = "document.querySelector('.modebar [data-title*=\"loud\"]')"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs")
    (root / "one").mkdir()
    record(root / "one" / "spectra.h5", epochs=12, groups=GROUPS)
    record(root / "two.h5", epochs=12, permutation_design=design(range(12)))
    write_report(root, root / "report.html")
    return root / "report.html"


@pytest.fixture(scope="module")
def tab():
    with open_tab() as opened:
        yield opened


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
def test_it_is_drawn_and_asks_no_network(tab, page, tmp_path, width, phone):
    tab.open(page, width, 900, phone)
    tab.wait(DRAWN)
    tab.screenshot(tmp_path / "whole.png", whole=True)
    with Image.open(tmp_path / "whole.png") as image:
        assert image.size == (width, tab.value("document.documentElement.scrollHeight"))
        assert len(np.unique(np.asarray(image.convert("L")))) > 50
    # nothing is wider than the window but what scrolls by itself
    assert tab.value("document.documentElement.scrollWidth") == width
    plots = json.loads(
        tab.value("JSON.stringify([...document.querySelectorAll('.plot')].map(p => p.getBoundingClientRect().right))")
    )
    assert max(plots) <= width
    assert tab.console == []
    assert tab.requests == []
    # the library's own button for uploading the figure
    assert tab.value(f"{CLOUD} === null")


def test_groups_layers_and_epochs_are_chosen(tab, page):
    tab.open(page, 1280, 900)
    tab.wait(DRAWN)
    lines = "document.querySelector('.plot').data.length"
    before = tab.value(lines)
    tab.value("document.querySelector('fieldset input').click()")  # all
    assert tab.value(lines) == before - 5
    tab.value("const s = document.querySelector('.slider input'); s.value = 3; s.dispatchEvent(new Event('input'))")
    assert tab.value("document.querySelector('figcaption output').textContent") == "epoch 3"
    assert tab.value("document.querySelector('.plot').layout.shapes[0].x0") == 3
    tab.value("const l = document.querySelector('.controls select'); l.value = 1; l.dispatchEvent(new Event('change'))")
    assert tab.value("document.querySelector('.layer').textContent").startswith("2   5 → 3")
    assert tab.console == []


def test_what_the_pointer_shows_is_the_name_as_it_is(tab, page):
    tab.open(page, 1280, 900)
    tab.wait(DRAWN)
    of_group = "document.querySelector('.plot').data.findIndex(line => line.meta.includes('alert'))"
    tab.value(f"Plotly.Fx.hover(document.querySelector('.plot'), [{{curveNumber: {of_group}, pointNumber: 2}}])")
    assert f"0 · {GROUPS[0]} · σ1" in tab.value("document.querySelector('.hoverlayer').textContent")
    assert "epoch 2" in tab.value("document.querySelector('.hoverlayer').textContent")
    labels = tab.value("[...document.querySelectorAll('fieldset')][0].textContent")
    assert all(group in labels for group in GROUPS)


def test_tables_sort_and_narrow_down(tab, page):
    tab.open(page, 1280, 900)
    tab.wait(DRAWN)
    tests = "[...document.querySelectorAll('table.sortable[data-find]')].pop()"
    column = f"[...{tests}.tHead.rows[0].cells].findIndex(head => head.textContent === 'p')"
    cells = f"[...{tests}.tBodies[0].rows].map(row => row.cells[{column}].dataset.value)"
    tab.value(f"{tests}.tHead.rows[0].cells[{column}].click()")
    rising = [float(text) for text in tab.value(cells)]
    assert rising == sorted(rising)
    assert len(set(rising)) > 1
    tab.value(f"{tests}.tHead.rows[0].cells[{column}].click()")
    assert [float(text) for text in tab.value(cells)] == sorted(rising, reverse=True)
    finder = f"{tests}.parentElement.previousElementSibling"
    tab.value(
        f"const f = {finder}.querySelector('input'); f.value = 'permutation_rank'; f.dispatchEvent(new Event('input'))"
    )
    left = tab.value(f"[...{tests}.tBodies[0].rows].filter(row => !row.hidden).length")
    assert 0 < left < len(rising)
    assert tab.value(f"{finder}.querySelector('output').textContent") == f"{left} of {len(rising)} rows"


def test_it_prints_every_run_with_its_provenance(tab, page, tmp_path):
    tab.open(page, 1000, 900)
    tab.wait(DRAWN)
    tab.print_to(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert tab.value("document.querySelectorAll('details.printed:not([open])').length") == 0
    assert tab.value("[...document.querySelectorAll('.spectra')].every(place => place.querySelector('.main-svg'))")
