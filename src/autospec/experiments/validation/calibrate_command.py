"""Calibrate every test: how often it finds a difference where there is none, and where there is one.

    python scripts/calibrate.py
    python scripts/calibrate.py --runs 50 --jobs 2
    python scripts/calibrate.py --only "classifier, effect zero"

Trains thousands of tiny networks on simulated cohorts, a block of studies side by side; writes
outputs/calibration/calibration.csv, the same as a Markdown table, and pictures. Kinds of studies that the file has in
the number asked for are not made again: the same command goes on where it was, another folder begins anew.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import joblib
import pandas as pd
import torch

from autospec.errors import AutoSpecError
from autospec.experiments import CONF
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.launch.console import log_to_console
from autospec.experiments.validation.conditions import CONFOUNDED, NULLS, POWER, Cell
from autospec.experiments.validation.page import update_page
from autospec.experiments.validation.picture import draw_calibration
from autospec.experiments.validation.rates import markdown, merge, rates, read, write
from autospec.experiments.validation.study import studies

log = logging.getLogger("autospec.experiments.validation")

NETWORK = ["dataset=freesurfer", "architecture=mlp", "width=4", "activation=tanh", "learning_rate=0.03"]
BLOCK = 50
"""Studies that are made together; another number makes other studies."""


def main() -> None:
    """Run every cell and write the table after each; exits with 1 after a mistake."""
    log_to_console()
    arguments = _parser().parse_args()
    folder = Path(arguments.output_dir) / "calibration"
    started = time.monotonic()
    try:
        table = _table(_choose_cells(arguments), arguments.jobs, folder / "calibration.csv")
        draw_calibration(table, folder)
        (folder / "calibration.md").write_text(f"{markdown(table)}\n")
        if arguments.docs is not None:
            update_page(table, Path(arguments.docs))
    except AutoSpecError as error:
        sys.exit(str(error))
    log.info("calibration: %s, %.1f minutes", folder / "calibration.csv", (time.monotonic() - started) / 60)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="studies of each null (default: 1000)")
    parser.add_argument("--power-runs", type=int, default=150, help="studies of each effect (default: 150)")
    parser.add_argument("--only", default="", help="studies whose name holds this text; the others' rows are kept")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--output-dir", default="outputs", help="as output_dir of `autospec run`")
    parser.add_argument("--docs", help="a folder whose calibration.md, CSV and pictures are made anew as well")
    return parser


def _choose_cells(arguments: argparse.Namespace) -> dict[Cell, int]:
    """The cells to be run, each with its number of studies; AutoSpecError where there are none."""
    if min(arguments.runs, arguments.power_runs, arguments.jobs) < 1:
        raise AutoSpecError("--runs, --power-runs and --jobs must be 1 or more")
    nulls = [cell for cells in NULLS.values() for cell in cells]
    cells = dict.fromkeys((*nulls, *CONFOUNDED), arguments.runs) | dict.fromkeys(POWER, arguments.power_runs)
    chosen = {cell: runs for cell, runs in cells.items() if arguments.only in _name(cell)}
    if not chosen:
        raise AutoSpecError(f"--only {arguments.only!r}: fits none of {'; '.join(_name(cell) for cell in cells)}")
    return chosen


def _name(cell: Cell) -> str:
    return f"{cell.name}, {cell.condition.groups}"


def _table(cells: dict[Cell, int], jobs: int, path: Path) -> pd.DataFrame:
    """The rates of every cell, with the rows that ``path`` has of others; it is written after each cell."""
    base = check_config(compose_config(CONF, NETWORK))
    table = read(path)
    with joblib.Parallel(n_jobs=jobs) as parallel:
        for place, (cell, runs) in enumerate(cells.items(), start=1):
            if _has(table, cell, runs):
                log.info("%d of %d: %s: kept", place, len(cells), _name(cell))
                continue
            seeds = cell.seeds(runs)
            work = (joblib.delayed(_block)(cell, base, seeds[at : at + BLOCK]) for at in range(0, runs, BLOCK))
            table = merge(table, rates(pd.concat(parallel(work)), cell.name, cell.condition.groups))
            write(table, path)
            log.info("%d of %d: %s", place, len(cells), _name(cell))
    return table


def _has(table: pd.DataFrame, cell: Cell, runs: int) -> bool:
    """Whether a table has the rates of a cell, of as many studies."""
    rows = table[(table["null"] == cell.name) & (table["groups"] == cell.condition.groups)]
    return len(rows) > 0 and bool((rows["runs"] == runs).all())


def _block(cell: Cell, base: ExperimentConfig, seeds: Sequence[int]) -> pd.DataFrame:
    torch.set_num_threads(1)
    return studies(cell.condition, base, seeds)
