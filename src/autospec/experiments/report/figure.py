"""One figure from its plan to its files: what is missing or out of date is tested and drawn again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from autospec.analysis import figure_summary
from autospec.analysis.figure_summary import DESCRIPTIVE_P, apart, as_drawn, summarise
from autospec.analysis.figure_table import COLUMNS, panel_table, write_table
from autospec.analysis.run_tables import RunTables
from autospec.errors import AutoSpecError
from autospec.experiments.config.grid import DIFFERENCE_PANELS, SPECTRA_PANELS
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.report.figure_plan import FigurePlan, PanelPlan
from autospec.experiments.report.files import FigureFiles, digest_of
from autospec.experiments.report.inputs import inputs_tests, load_inputs
from autospec.experiments.report.optional_pictures import optional_pictures
from autospec.experiments.report.panels import (
    difference_panel,
    figure_title,
    group_label,
    panel_runs,
    spectra_panel,
)
from autospec.experiments.report.retraining import kept_ratios, make_folder, retrain_missing
from autospec.figures.caption import figure_caption
from autospec.figures.contents import DifferencePanel, Panel, SpectraPanel
from autospec.figures.page import draw_figure, draw_panel
from autospec.store.atomic import write_atomically
from autospec.store.permutations import PermutationRatios
from autospec.store.read import load_spectra

log = logging.getLogger(__name__)


def update_figure(figure: FigurePlan) -> FigureFiles:
    """Test and draw one figure from the runs of its panels A–H, unless that is done already.

    Args:
        figure: The figure's plan.

    Returns:
        The figure's files.

    Raises:
        AutoSpecError: A run is missing or has fewer than two groups, or a file cannot be written.
    """
    config = figure.config
    if config.figure.number is None:
        raise AutoSpecError("figure: none is chosen")
    files = FigureFiles(Path(config.output_dir), config.figure.number)
    letters = [panel.letter for panel in figure.panels]
    retrain_missing(figure.tested_runs, jobs=1)
    made_from = digest_of(figure)
    if files.are_current(letters, made_from):
        log.info("figure %d is up to date", files.number)
        return files
    parts = _read_parts(figure, files)  # before anything is written
    for folder in (files.table.parent, files.stamp.parent):
        make_folder(folder)
    files.stamp.unlink(missing_ok=True)
    _write(parts, files, config)
    with write_atomically(files.stamp) as temporary:
        temporary.write_text(json.dumps(made_from))
    log.info("figure %d: %s", files.number, files.pictures[0])
    return files


@dataclass
class FigureParts:
    """What a figure is drawn from, by the letters of its panels; no run is open any more.

    Attributes:
        spectra: The panels A–F.
        differences: The panels G and H, and those of a supplement.
        tests: The tests of each panel whose groups are compared.
        optional: Pictures of what was recorded on request, to be drawn by calling them.
    """

    spectra: dict[str, SpectraPanel]
    differences: dict[str, DifferencePanel]
    tests: dict[str, pd.DataFrame]
    optional: list[Callable[[], None]]


def _read_parts(figure: FigurePlan, files: FigureFiles) -> FigureParts:
    """Read each run once, whichever panels it serves, and take from it what they show."""
    parts = FigureParts({}, {}, {}, [])
    plain = _test_inputs(figure)
    of_run: dict[Path, list[PanelPlan]] = {}
    for panel in figure.panels:
        of_run.setdefault(panel.seeds[0].folder.spectra, []).append(panel)
    for panels in of_run.values():
        seeds = panels[0].seeds
        tables = [RunTables(load_spectra(plan.folder.spectra)) for plan in seeds]
        is_tested = any(panel.is_tested for panel in panels)
        retrained = [ratios for plan in seeds if (ratios := kept_ratios(plan))] if is_tested else []
        for panel in panels:
            _take_panel(parts, panel, tables, retrained, plain.get(panel.letter), files)
    return parts


def _test_inputs(figure: FigurePlan) -> dict[str, pd.DataFrame]:
    """The tests of the inputs of each panel whose groups are compared, by its letter; the data are let go again."""
    tested = [panel for panel in figure.panels if panel.is_tested]
    data = load_inputs(panel.config for panel in tested)
    return {panel.letter: inputs_tests(panel.config, data) for panel in tested}


def _take_panel(
    parts: FigureParts,
    panel: PanelPlan,
    seeds: Sequence[RunTables],
    retrained: Sequence[PermutationRatios],
    plain: pd.DataFrame | None,
    files: FigureFiles,
) -> None:
    """Add what one panel shows of its runs."""
    runs, letter = panel_runs(panel, seeds, retrained), panel.letter
    if letter in SPECTRA_PANELS:
        parts.spectra[letter] = spectra_panel(runs)
        parts.optional += optional_pictures(letter, runs.seeds[0].spectra, runs.pairs, files.panel)
    if runs.is_tested:
        min_group = runs.config.figure.min_group
        tests = panel_table(runs.seeds, files.number, letter, min_group, runs.retrained, plain)
        parts.tests[letter] = as_drawn(tests, runs.pairs)
        parts.differences[letter] = difference_panel(runs, parts.tests[letter])


def _write(parts: FigureParts, files: FigureFiles, config: ExperimentConfig) -> None:
    tested = [*DIFFERENCE_PANELS, *(letter for letter in parts.tests if letter not in DIFFERENCE_PANELS)]
    panels: list[Panel] = [parts.spectra[letter] for letter in SPECTRA_PANELS]
    panels += [parts.differences[letter] for letter in tested]
    title = figure_title(config, panels[0].provenance)

    tests = pd.concat([parts.tests[letter] for letter in tested], ignore_index=True)
    table, summary = apart(tests), summarise(tests, partial(group_label, config))
    write_table(table, files.table, {**COLUMNS, DESCRIPTIVE_P: "p of a descriptive test: no evidence."})
    write_table(summary, files.summary, figure_summary.COLUMNS)

    draw_figure(files.number, title, panels, files.pictures, files.caption.name)
    for panel in panels:
        draw_panel(panel, files.panel(panel.letter), files.caption.name)
    for draw in parts.optional:
        draw()
    with write_atomically(files.caption) as temporary:
        temporary.write_text(figure_caption(files.number, title, panels), "utf-8")
