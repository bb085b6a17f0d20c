"""What comes out is harmless, whatever names and ids hold: console, logs, pictures, tables, pages."""

from __future__ import annotations

import csv
import logging
import re
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from torch import nn

from autospec import SpectralRecorder, open_spectra
from autospec.analysis.figure_table import write_table
from autospec.cohorts.prepared_file import write_prepared
from autospec.cohorts.quality_page import write_quality_page
from autospec.errors import AutoSpecError
from autospec.experiments.runs.folder import RunFolder
from autospec.experiments.runs.log import last_message, log_run
from autospec.experiments.runs.status import Status, summary
from autospec.figures.optional_statistics import draw_ranks
from autospec.figures.show_command import main as show
from autospec.harmless import Formatter, in_cell, in_page, in_picture, visible

HOSTILE = {
    "a terminal's commands": "\x1b[2J\x1b]0;owned\x07",
    "a line of its own": "x\n2026-01-01 00:00:00,000 INFO complete",
    "a carriage return": "x\rdone",
    "writing turned round": "x\u202eevil",
    "mathematics": r"$\frac{1}{0}$ and $",
    "a formula": '=HYPERLINK("x")',
    "HTML": "<script>alert(1)</script>&\"'",
    "C1 controls": "\x9b2J\x85",
}


def _is_seen(text: str, keep: str = "\n") -> bool:
    return all(letter in keep or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text)


@pytest.mark.parametrize("name", HOSTILE)
def test_every_way_out_shows_a_name_that_nothing_obeys(name: str) -> None:
    text = HOSTILE[name]
    assert _is_seen(visible(text), keep="")
    assert _is_seen(in_picture(text), keep="")
    assert in_picture(text).count("$") == in_picture(text).count(r"\$")
    assert str(in_cell(text))[0] not in "=+-@\t\r"
    assert not re.search("[<>]", in_page(text))
    assert _is_seen(str(AutoSpecError(f"subject {text}: is missing")))


def test_names_of_every_language_stay_as_they_are() -> None:
    for text in ("SZ/männer", "患者", "d’Été", "σ₁ · 3 × 4", "a b"):
        assert visible(text) == in_picture(text) == in_cell(text) == in_page(text) == text
    assert [in_cell(value) for value in ("-1", "+2.5", -1, None, "SZ-HC")] == ["-1", "+2.5", -1, None, "SZ-HC"]
    assert [in_cell(text) for text in ("-a", " =1", "@x", "+x")] == ["'-a", "' =1", "'@x", "'+x"]


def test_no_line_of_a_log_can_pass_for_another_message(tmp_path) -> None:
    folder = RunFolder(tmp_path)
    with log_run(folder, keep_mistakes=True):
        logging.getLogger("autospec").warning("left out: %s", HOSTILE["a line of its own"] + "\x1b[2J")
    assert last_message(folder.log).level == "WARNING"
    assert _is_seen(folder.log.read_text())
    record = logging.makeLogRecord({"msg": "a\n%s", "args": ("b\x07",)})
    assert Formatter("%(message)s").format(record) == "a\n  b\\x07"


def test_a_status_is_a_line_for_each_run(tmp_path) -> None:
    runs = [Status(text, "failed", text) for text in HOSTILE.values()]
    told = summary(runs, tmp_path)
    assert len(told.splitlines()) == 1 + len(runs)
    assert _is_seen(told)


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory):
    """A file whose layers, groups and source are hostile."""
    torch.manual_seed(0)
    names = list(HOSTILE.values())
    model = nn.Sequential()
    for name in (HOSTILE["a terminal's commands"], HOSTILE["mathematics"], HOSTILE["HTML"]):
        model.add_module(name.replace(".", ""), nn.Linear(4, 4))
    path = tmp_path_factory.mktemp("hostile") / "spectra.h5"
    attributes = {"source": HOSTILE["mathematics"], "run_id": HOSTILE["a terminal's commands"], "simulated": True}
    labels = torch.arange(16) % len(names)
    statistics = ("gradient", "rank")
    with SpectralRecorder(model, path, groups=names, attributes=attributes, statistics=statistics) as recorder:
        for _ in range(3):
            with recorder.batch(labels):
                model(torch.randn(16, 4)).square().mean().backward()
            recorder.end_epoch()
    return open_spectra(path)


def _texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_pictures_with_hostile_names_are_drawn_letter_by_letter(spectra, tmp_path) -> None:
    a, b = HOSTILE["mathematics"], HOSTILE["a terminal's commands"]
    shown = spectra.plot(groups=[a, b], path=tmp_path / "a.png")
    for figure in (shown, spectra.plot_differences(a, b, path=tmp_path / "b.pdf")):
        assert all(map(_is_seen, _texts(figure)))
        assert any(r"\$\frac" in text for text in _texts(figure))
    ranks = [(name, spectra[name].sel(group=[a])) for name in spectra.layers]
    draw_ranks(ranks, HOSTILE["mathematics"], tmp_path / "c.png")


def test_what_is_told_of_a_file_is_seen(spectra, capsys) -> None:
    show([str(spectra.path)])
    told = capsys.readouterr().out
    assert _is_seen(told)
    assert r"\x1b[2J" in told
    assert _is_seen(repr(spectra))


def test_a_table_begins_no_formula(tmp_path) -> None:
    table = pd.DataFrame({"group": list(HOSTILE.values()), "p": [-0.5, np.nan, *[1.0] * (len(HOSTILE) - 2)]})
    write_table(table, tmp_path / "table.csv", {"group": "a group", "p": "a p"})
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(HOSTILE)
    assert all(_is_seen(row["group"], keep="") and row["group"][0] not in "=+-@" for row in rows)
    assert [row["p"] for row in rows[:2]] == ["-0.5", ""]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes) -> None:
        self.found.append(tag)


def test_a_page_shows_hostile_ids_as_text(tmp_path) -> None:
    ids = [f"{index} {text}" for index, text in enumerate(HOSTILE.values())]
    people = pd.DataFrame({"id": ids, "diagnosis": [*HOSTILE.values()]})
    courses = np.random.default_rng(0).normal(size=(len(ids), 30, 4)).astype(np.float32)
    write_prepared(tmp_path / "cohort.h5", people, {"timecourses": courses}, HOSTILE["HTML"])
    write_quality_page(tmp_path / "cohort.h5", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    tags = _Tags()
    tags.feed(page)
    assert tags.found.count("script") == 1  # our own
    assert _is_seen(page)
    assert "&lt;script&gt;alert(1)" in page
