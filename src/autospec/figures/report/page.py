"""The whole report: what is there, figures, tests, runs; one file that needs no network."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import plotly.offline

from autospec.errors import AutoSpecError
from autospec.figures.report.files import ReportFiles, find_files
from autospec.figures.report.group_tests import figure_tests
from autospec.figures.report.pictures import Album
from autospec.figures.report.plot_data import MOST_VALUES
from autospec.figures.report.run_section import ROW_HEADS, RunSection, run_section
from autospec.store.atomic import write_atomically
from autospec.store.read import open_spectra
from autospec.webpage.document import asset, document, escape
from autospec.webpage.table import PAGE_STYLE, TABLE_SCRIPT, Column, Link, render_table

PAGE_VALUES = 2_000_000
"""Singular values of all runs together: about eleven megabytes."""
MOST_DRAWN = 40
"""So many runs have plots, the first ones."""
FOLDER = Path(__file__).parent


@dataclass
class Report:
    """A report while it is made.

    Attributes:
        files: What it shows.
        notes: A line for each thing that is not there or cannot be shown.
    """

    files: ReportFiles
    notes: list[str] = field(default_factory=list)


def write_report(root: Path, page: Path) -> list[str]:
    """Write the report of a file or folder.

    Args:
        root: A spectra file, the folder of a run, or a folder of runs, figures and tables such as ``outputs``.
        page: The HTML file.

    Returns:
        A line for each thing that could not be shown; the page says it too.

    Raises:
        AutoSpecError: There is nothing to show, the one file cannot be read, or the page cannot be written.
    """
    report = Report(find_files(root))
    report.notes += report.files.absent
    text = _page(report)
    with write_atomically(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return report.notes


def _page(report: Report) -> str:
    runs = _runs(report)
    album = Album()
    figures = album.figures(report.files.figures)
    tests = _tests(report)
    report.notes += album.left_out
    parts = {
        "figures": ("Figures", figures),
        "tests": ("Tests", tests),
        "runs": (
            "Run" if len(runs) == 1 else "Runs",
            _table_of_runs(runs) + "\n".join(section.html for section in runs.values()),
        ),
    }
    there = {name: part for name, part in parts.items() if part[1]}
    links = " · ".join(f'<a href="#{name}">{heading}</a>' for name, (heading, _) in there.items())
    name = report.files.root.resolve().name
    body = "\n".join(
        [
            f"<h1>{escape(name)}</h1>",
            f"<nav>{links}</nav>" if len(there) > 1 else "",
            _notes(report.notes),
            "<noscript><p>JavaScript is off: no spectra are drawn, and tables do not sort.</p></noscript>",
            *(f'<h2 id="{name}">{heading}</h2>\n{content}' for name, (heading, content) in there.items()),
            *(section.data for section in runs.values()),
        ]
    )
    scripts = [TABLE_SCRIPT, asset("report.js", FOLDER)]
    if any(run.data for run in runs.values()):
        scripts.insert(0, plotly.offline.get_plotlyjs())
    return document(f"{name} – AutoSpec", body, [PAGE_STYLE, asset("report.css", FOLDER)], scripts)


def _runs(report: Report) -> dict[str, RunSection]:
    """A section for each spectra file that can be read, by its name."""
    paths = report.files.spectra
    alone = paths == (report.files.root,)
    room = min(MOST_VALUES, PAGE_VALUES // max(min(len(paths), MOST_DRAWN), 1))
    sections: dict[str, RunSection] = {}
    for path in paths:
        try:
            spectra = open_spectra(path)
            name = _unique(
                spectra.run_id or (path.stem if alone else str(path.relative_to(report.files.root))), sections
            )
            drawn = room if len(sections) < MOST_DRAWN else 0
            sections[name] = run_section(spectra, name, f"run-{len(sections) + 1}", drawn)
        except AutoSpecError as error:
            if alone:
                raise
            report.notes.append(str(error))
    return sections


def _unique(name: str, taken: dict[str, RunSection]) -> str:
    number, unique = 2, name
    while unique in taken:
        number, unique = number + 1, f"{name} ({number})"
    return unique


def _table_of_runs(runs: dict[str, RunSection]) -> str:
    if len(runs) < 2:
        return ""
    heads = [Column("run"), *map(Column, ROW_HEADS)]
    rows = [(Link(name, f"run-{place}"), *run.row) for place, (name, run) in enumerate(runs.items(), 1)]
    return render_table(heads, rows, "runs", find=True)


def _tests(report: Report) -> str:
    tables = []
    for path in report.files.tables:
        try:
            tables.append(figure_tests(path))
        except AutoSpecError as error:
            report.notes.append(str(error))
    about = (
        "<p>Inferential: labels of subjects permuted. Exploratory: the same for single epochs or indices. Descriptive: "
        "the paper's t-tests, whose p is no probability of a chance finding. A difference is an association with the "
        "label, which need not be its cause.</p>"
    )
    return about + "\n".join(tables) if tables else ""


def _notes(notes: list[str]) -> str:
    if not notes:
        return ""
    lines = "".join(f"<li>{escape(textwrap.shorten(note, 400))}</li>" for note in notes)
    return f'<div class="notes"><p>Not shown:</p><ul>{lines}</ul></div>'
