"""Figures on disk: what is missing or out of date is tested and drawn again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

import autospec.analysis
import autospec.figures
from autospec.analysis import figure_summary
from autospec.analysis.figure_summary import DESCRIPTIVE_P, apart, as_drawn, summarise
from autospec.analysis.figure_table import COLUMNS, panel_table, write_table
from autospec.analysis.run_tables import RunTables
from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.config.grid import DIFFERENCE_PANELS, SPECTRA_PANELS
from autospec.experiments.config.pairs import pairs_in_front
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.plan import Plan, plan_run
from autospec.experiments.report.inputs import inputs_tests
from autospec.experiments.report.optional_pictures import optional_pictures
from autospec.experiments.report.panels import difference_panel, figure_title, group_label, spectra_panel
from autospec.experiments.report.retraining import is_retrained, make_folder, ratios_path, read_ratios, retrain_missing
from autospec.figures.caption import figure_caption
from autospec.figures.contents import DifferencePanel, Panel, SpectraPanel
from autospec.figures.page import draw_figure, draw_panel
from autospec.store.atomic import write_atomically
from autospec.store.read import load_spectra
from autospec.store.schema import GRADIENT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FigureFiles:
    """The files of one figure.

    Attributes:
        output_dir: The folder below which they stand.
        number: The figure's number.
    """

    output_dir: Path
    number: int

    @property
    def pictures(self) -> list[Path]:
        """The whole figure, as PDF and PNG."""
        return [self.output_dir / "figures" / f"figure_{self.number}.{kind}" for kind in ("pdf", "png")]

    def panel(self, letter: str) -> Path:
        """Return the picture of one panel."""
        return self.output_dir / "figures" / f"figure_{self.number}_{letter}.png"

    @property
    def table(self) -> Path:
        """The table of its tests."""
        return self.output_dir / "tables" / f"figure_{self.number}_tests.csv"

    @property
    def summary(self) -> Path:
        """The summary of its tests, a row for each panel, layer and pair."""
        return self.output_dir / "tables" / f"figure_{self.number}_summary.csv"

    @property
    def caption(self) -> Path:
        """Its caption, ready for a paper."""
        return self.output_dir / "figures" / f"figure_{self.number}_caption.md"

    @property
    def stamp(self) -> Path:
        """A digest of what the files were made from."""
        return self.output_dir / "figures" / f".figure_{self.number}.json"


def check_comparisons(plans: Mapping[str, Plan]) -> None:
    """Check that what a figure compares will be there once its runs are trained.

    Args:
        plans: The plan of each panel, by its letter.

    Raises:
        AutoSpecError: Gradient spectra are not recorded, or a pair names no group.
    """
    configs = [plans[letter].config for letter in _tested_panels(plans)]
    for config in {repr(config.dataset): config for config in configs}.values():
        statistics = config.introspection.statistics
        if GRADIENT not in statistics:
            raise AutoSpecError(f"introspection.statistics={statistics}: a figure shows gradient spectra; add gradient")
        data = datasets.load(config.dataset)
        pairs_in_front(config.figure.pairs, [*data.groups, *data.margins])


def update_figure(plans: Mapping[str, Plan]) -> FigureFiles:
    """Test and draw one figure from the runs of its panels A–H, unless that is done already.

    Args:
        plans: The plan of each panel, by its letter.

    Returns:
        The figure's files.

    Raises:
        AutoSpecError: A run is missing or has fewer than two groups, or a file cannot be written.
    """
    config = plans["A"].config
    if config.figure.number is None:
        raise AutoSpecError("figure: none is chosen")
    files = FigureFiles(Path(config.output_dir), config.figure.number)
    retrain_missing([plan for plan in tested_runs(plans) if plan.done], jobs=1)
    made_from = _digest(plans)
    if _is_current(files, plans, made_from):
        log.info("figure %d is up to date", files.number)
        return files
    parts = _read_parts(plans, files)  # before anything is written
    for folder in (files.table.parent, files.stamp.parent):
        make_folder(folder)
    files.stamp.unlink(missing_ok=True)
    _write(parts, files, config)
    with write_atomically(files.stamp) as temporary:
        temporary.write_text(json.dumps(made_from))
    log.info("figure %d: %s", files.number, files.pictures[0])
    return files


def _is_current(files: FigureFiles, plans: Mapping[str, Plan], made_from: Mapping[str, str]) -> bool:
    every = [*files.pictures, files.table, files.summary, files.caption, *(files.panel(letter) for letter in plans)]
    stamped = files.stamp.exists() and files.stamp.read_bytes() == json.dumps(made_from).encode()
    return stamped and all(path.exists() for path in every)


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


def _read_parts(plans: Mapping[str, Plan], files: FigureFiles) -> FigureParts:
    """Read each run once, whichever panels it serves, and take from it what they show."""
    parts = FigureParts({}, {}, {}, [])
    tested = set(_tested_panels(plans))
    of_run: dict[Path, list[str]] = {}
    for letter, plan in plans.items():
        of_run.setdefault(plan.folder.spectra, []).append(letter)
    for letters in of_run.values():
        planned = seed_plans(plans[letters[0]])
        seeds = [RunTables(load_spectra(plan.folder.spectra)) for plan in planned]
        is_tested = not tested.isdisjoint(letters)
        retrained = [read_ratios(ratios_path(plan)) for plan in planned if is_tested and is_retrained(plan)]
        for letter in letters:
            config = plans[letter].config
            if letter in SPECTRA_PANELS:
                parts.spectra[letter] = spectra_panel(letter, config, seeds)
                parts.optional += optional_pictures(letter, config, seeds[0].spectra, files.panel)
            if letter in tested:
                in_front = pairs_in_front(config.figure.pairs, seeds[0].spectra.group_names)
                tests = panel_table(
                    seeds, files.number, letter, config.figure.min_group, retrained, inputs_tests(config)
                )
                tests = as_drawn(tests, in_front)
                name = letter if letter in DIFFERENCE_PANELS else f"{letter}_differences"
                parts.tests[letter] = tests
                parts.differences[letter] = difference_panel(name, config, seeds, tests)
    return parts


def _write(parts: FigureParts, files: FigureFiles, config: ExperimentConfig) -> None:
    tested = [*DIFFERENCE_PANELS, *(letter for letter in parts.tests if letter not in DIFFERENCE_PANELS)]
    tests = pd.concat([parts.tests[letter] for letter in tested], ignore_index=True)
    write_table(apart(tests), files.table, {**COLUMNS, DESCRIPTIVE_P: "p of a descriptive test: no evidence."})
    summary = summarise(tests, partial(group_label, config))
    write_table(summary, files.summary, figure_summary.COLUMNS)
    panels: list[Panel] = [parts.spectra[letter] for letter in SPECTRA_PANELS]
    panels += [parts.differences[letter] for letter in tested]
    title = figure_title(config, panels[0].provenance)
    draw_figure(files.number, title, panels, files.pictures, files.caption.name)
    for panel in panels:
        draw_panel(panel, files.panel(panel.letter), files.caption.name)
    for draw in parts.optional:
        draw()
    with write_atomically(files.caption) as temporary:
        temporary.write_text(figure_caption(files.number, title, panels), "utf-8")


def tested_runs(plans: Mapping[str, Plan]) -> list[Plan]:
    """List the runs whose group differences a figure tests, of every seed.

    Args:
        plans: The plan of each panel, by its letter.

    Returns:
        Their plans, each once.
    """
    runs = [seed_plan for letter in _tested_panels(plans) for seed_plan in seed_plans(plans[letter])]
    return list({plan.folder.path: plan for plan in runs}.values())


def _tested_panels(plans: Mapping[str, Plan]) -> list[str]:
    """The panels whose group differences are tested: G and H, and C to F where the supplement is asked for."""
    supplement = [letter for letter in ("C", "D", "E", "F") if plans[letter].config.supplement]
    return [*DIFFERENCE_PANELS, *supplement]


def seed_plans(plan: Plan) -> list[Plan]:
    """Plan a panel's run, and the same with each further seed of ``figure.seeds``.

    Args:
        plan: The panel's plan.

    Returns:
        The plan itself, then those of further seeds.
    """
    seeds = [seed for seed in dict.fromkeys(plan.config.figure.seeds) if seed != plan.config.seed]
    return [plan, *(plan_run(replace(plan.config, seed=seed)) for seed in seeds)]


def _digest(plans: Mapping[str, Plan]) -> dict[str, str]:
    """What a figure is made from: its runs' files, its settings, and the code that tests and draws."""
    made_from = {"code": _code_digest()}
    for letter, plan in plans.items():
        shown = f"{plan.config.figure} {plan.config.supplement}"
        for seed_plan in seed_plans(plan):
            status = seed_plan.folder.spectra.stat()
            stamp = f"{seed_plan.folder.run_id} {status.st_size} {status.st_mtime_ns} {shown}"
            kept = ratios_path(seed_plan)
            stamp += f" {kept.name} {kept.stat().st_mtime_ns}" if is_retrained(seed_plan) and kept.exists() else ""
            made_from[f"{letter} {seed_plan.config.seed}"] = stamp
    return made_from


def _code_digest() -> str:
    total = hashlib.sha256(Path(__file__).with_name("panels.py").read_bytes())
    for package in (autospec.analysis, autospec.figures):
        for path in sorted(Path(str(package.__file__)).parent.glob("*.py")):
            total.update(path.read_bytes())
    return total.hexdigest()[:16]
