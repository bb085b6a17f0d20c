"""Calibrate every test: how often it finds a difference where there is none, and where there is one.

    python scripts/calibrate.py
    python scripts/calibrate.py --runs 50 --jobs 2

Trains thousands of tiny networks on simulated cohorts; writes outputs/calibration/calibration.csv and a picture.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import joblib
import pandas as pd
import torch

from autospec.calibration.conditions import CONFOUNDED, NULLS, POWER, Cell
from autospec.calibration.rates import markdown, rates, write
from autospec.calibration.study import study
from autospec.config.checks import checked
from autospec.config.grid import composed
from autospec.config.schema import ExperimentConfig
from autospec.errors import AutoSpecError
from autospec.figures.calibration import draw_calibration
from autospec.progress import ConsoleHandler

log = logging.getLogger("autospec.calibration")

CONF = Path(__file__).resolve().parent.parent / "conf"
NETWORK = ["dataset=freesurfer", "architecture=mlp", "width=4", "activation=tanh", "learning_rate=0.03"]


def main() -> None:
    """Run every cell and write the table after each; exits with 1 after a mistake."""
    logging.basicConfig(format="%(message)s", handlers=[ConsoleHandler()])
    logging.getLogger("autospec").setLevel(logging.INFO)
    arguments = _parser().parse_args()
    folder = Path(arguments.output_dir) / "calibration"
    started = time.monotonic()
    try:
        table = _table(arguments.runs, arguments.power_runs, arguments.jobs, folder)
        draw_calibration(table, folder / "calibration.png")
        (folder / "calibration.md").write_text(f"{markdown(table)}\n")
    except AutoSpecError as error:
        sys.exit(str(error))
    log.info("calibration: %s, %.1f minutes", folder / "calibration.csv", (time.monotonic() - started) / 60)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="studies of each null (default: 1000)")
    parser.add_argument("--power-runs", type=int, default=150, help="studies of each effect (default: 150)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--output-dir", default="outputs", help="as output_dir of run.py")
    return parser


def _table(runs: int, power_runs: int, jobs: int, folder: Path) -> pd.DataFrame:
    base = checked(composed(CONF, NETWORK))
    cells = [(cell, runs) for cell in NULLS] + [(cell, power_runs) for cell in (*CONFOUNDED, *POWER)]
    parts: list[pd.DataFrame] = []
    with joblib.Parallel(n_jobs=jobs) as parallel:
        for place, (cell, count) in enumerate(cells):
            seeds = [1_000_000 * (place + 1) + number for number in range(count)]
            work = (joblib.delayed(_several)(cell, base, seeds[at::jobs]) for at in range(jobs))
            parts.append(rates(pd.concat(parallel(work)), cell.name, cell.condition.groups))
            write(pd.concat(parts, ignore_index=True), folder / "calibration.csv")
            log.info("%d of %d: %s, %s", place + 1, len(cells), cell.name, cell.condition.groups)
    return pd.concat(parts, ignore_index=True)


def _several(cell: Cell, base: ExperimentConfig, seeds: list[int]) -> pd.DataFrame:
    torch.set_num_threads(1)
    return pd.concat([study(cell.condition, base, seed) for seed in seeds])


if __name__ == "__main__":
    main()
