"""Figures on disk: what is missing or out of date is tested and drawn again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

import autospec.analysis
import autospec.figures
from autospec.analysis.figure_table import panel_table, write_table
from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.config.grid import DIFFERENCE_PANELS, SPECTRA_PANELS
from autospec.experiments.config.pairs import pairs_in_front
from autospec.experiments.plan import Plan, plan_run
from autospec.experiments.report.panels import difference_panel, spectra_panel
from autospec.figures.optional_statistics import draw_ranks, draw_subspaces, draw_tied
from autospec.figures.page import Panel, draw_figure, draw_panel
from autospec.store.atomic import write_atomically
from autospec.store.read import Spectra, open_spectra
from autospec.store.schema import GRADIENT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FigureFiles:
    """The files of one figure below an output folder."""

    output_dir: Path
    number: int

    @property
    def pictures(self) -> list[Path]:
        return [self.output_dir / "figures" / f"figure_{self.number}.{kind}" for kind in ("pdf", "png")]

    def panel(self, letter: str) -> Path:
        return self.output_dir / "figures" / f"figure_{self.number}_{letter}.png"

    @property
    def table(self) -> Path:
        return self.output_dir / "tables" / f"figure_{self.number}_tests.csv"

    @property
    def stamp(self) -> Path:
        """A digest of what the files were made from."""
        return self.output_dir / "figures" / f".figure_{self.number}.json"


def check_comparisons(plans: Mapping[str, Plan]) -> None:
    """AutoSpecError where what a figure compares will not be there once its runs are trained."""
    configs = [plans[letter].config for letter in _tested(plans)]
    for config in {repr(config.dataset): config for config in configs}.values():
        statistics = config.introspection.statistics
        if GRADIENT not in statistics:
            raise AutoSpecError(f"introspection.statistics={statistics}: a figure shows gradient spectra; add gradient")
        data = datasets.load(config.dataset)
        pairs_in_front(config.figure.pairs, [*data.groups, *data.margins])


def update_figure(plans: Mapping[str, Plan]) -> FigureFiles:
    """Test and draw one figure from the runs of its panels A–H, unless that is done already.

    Raises AutoSpecError where a run is missing or has fewer than two groups.
    """
    config = plans["A"].config
    if config.figure.number is None:
        raise AutoSpecError("figure: none is chosen")
    files = FigureFiles(Path(config.output_dir), config.figure.number)
    made_from = _digest(plans)
    everything = [*files.pictures, files.table, *(files.panel(letter) for letter in plans)]
    if (
        files.stamp.exists()
        and files.stamp.read_text() == json.dumps(made_from)
        and all(p.exists() for p in everything)
    ):
        log.info("figure %d is up to date", files.number)
        return files
    for letter in _tested(plans):  # before anything is written
        pairs_in_front(plans[letter].config.figure.pairs, open_spectra(plans[letter].folder.spectra).group_names)
    for folder in (files.table.parent, files.stamp.parent):
        _make(folder)
    files.stamp.unlink(missing_ok=True)
    tables = {letter: _table(plans, letter, files.number) for letter in _tested(plans)}
    write_table(pd.concat(tables.values(), ignore_index=True), files.table)
    panels = list(_panels(plans, tables))
    draw_figure(files.number, config.figure.title, panels, files.pictures)
    for panel in panels:
        draw_panel(panel, files.panel(panel.letter))
    for letter in SPECTRA_PANELS:
        _draw_requested(plans[letter], files, letter)
    with write_atomically(files.stamp) as temporary:
        temporary.write_text(json.dumps(made_from))
    log.info("figure %d: %s", files.number, files.pictures[0])
    return files


def _tested(plans: Mapping[str, Plan]) -> list[str]:
    """The panels whose group differences are tested: G and H, and C to F where the supplement is asked for."""
    supplement = [letter for letter in ("C", "D", "E", "F") if plans[letter].config.supplement]
    return [*DIFFERENCE_PANELS, *supplement]


def _table(plans: Mapping[str, Plan], letter: str, number: int) -> pd.DataFrame:
    plan = plans[letter]
    return panel_table(_seeds(plan), number, letter, plan.config.figure.min_group)


def _seeds(plan: Plan) -> list[Spectra]:
    """The spectra of a panel's run, and of the same run with each of ``figure.seeds``."""
    return [open_spectra(own.folder.spectra) for own in seed_plans(plan)]


def seed_plans(plan: Plan) -> list[Plan]:
    """A panel's run, then the same with each further seed of ``figure.seeds``."""
    seeds = [seed for seed in dict.fromkeys(plan.config.figure.seeds) if seed != plan.config.seed]
    return [plan, *(plan_run(replace(plan.config, seed=seed)) for seed in seeds)]


def _panels(plans: Mapping[str, Plan], tables: Mapping[str, pd.DataFrame]) -> Iterable[Panel]:
    for letter in SPECTRA_PANELS:
        yield spectra_panel(letter, plans[letter].config, _seeds(plans[letter]))
    for letter in tables:
        plan = plans[letter]
        name = letter if letter in DIFFERENCE_PANELS else f"{letter}_differences"
        yield difference_panel(name, plan.config, open_spectra(plan.folder.spectra), tables[letter])


def _draw_requested(plan: Plan, files: FigureFiles, letter: str) -> None:
    """Pictures of spectra along the tied dimension, of ranks and of subspaces, where a run has recorded them."""
    spectra = open_spectra(plan.folder.spectra)
    layers = [(name, spectra[name]) for name in spectra.layers]
    footer = f"{spectra.run_id}{' (SIMULATED DATA)' if spectra.simulated else ''}"
    tied = [(name, values) for name, values in layers if values.sizes.get("position", 1) > 1]
    ranked = [(name, values) for name, values in layers if "rank_bound" in values]
    if tied:
        draw_tied(tied, footer, files.panel(f"{letter}_tied"))
    if ranked:
        draw_ranks(ranked, footer, files.panel(f"{letter}_rank"))
    turned = [(name, values) for name, values in layers if "subspace_groups" in values]
    if turned:
        pairs = pairs_in_front(plan.config.figure.pairs, spectra.group_names)
        draw_subspaces(turned, pairs, footer, files.panel(f"{letter}_subspace"))


def _digest(plans: Mapping[str, Plan]) -> dict[str, str]:
    """What a figure is made from: its runs' files, its settings, and the code that tests and draws."""
    made_from = {"code": _code_digest()}
    for letter, plan in plans.items():
        shown = f"{plan.config.figure} {plan.config.supplement}"
        for own in seed_plans(plan):
            status = own.folder.spectra.stat()
            stamp = f"{own.folder.run_id} {status.st_size} {status.st_mtime_ns} {shown}"
            made_from[f"{letter} {own.config.seed}"] = stamp
    return made_from


def _code_digest() -> str:
    total = hashlib.sha256(Path(__file__).with_name("panels.py").read_bytes())
    for package in (autospec.analysis, autospec.figures):
        for path in sorted(Path(str(package.__file__)).parent.glob("*.py")):
            total.update(path.read_bytes())
    return total.hexdigest()[:16]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutoSpecError(f"output_dir: cannot write {folder}: {error.strerror}") from error
