"""Plant a shortcut in simulated data and see how often it is found.

    python scripts/shortcut.py
    python scripts/shortcut.py --runs 200 --d 0 0.4 0.8 --subjects 40

Trains networks for each study; writes outputs/shortcut/shortcut.csv and a picture, and prints the table. Effects
that the file has in as many studies are not counted again: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import joblib
import pandas as pd
import torch

from autospec.analysis.figure_table import write_table
from autospec.errors import AutoSpecError
from autospec.experiments import CONF
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.launch.console import log_to_console
from autospec.experiments.validation.shortcut import (
    COLUMNS,
    NETWORK,
    SUBJECTS,
    D,
    Shortcut,
    shortcut_rates,
    shortcut_study,
)
from autospec.experiments.validation.shortcut_picture import draw_shortcut
from autospec.figures.terminal import as_text

log = logging.getLogger("autospec.experiments.validation")


def main() -> None:
    """Make the studies of every effect and write their rates; exits with 1 after a mistake."""
    log_to_console()
    arguments = _parser().parse_args()
    folder = Path(arguments.output_dir) / "shortcut"
    try:
        table = _table(_kinds(arguments), arguments.runs, arguments.jobs, folder / "shortcut.csv")
        draw_shortcut(table, folder / "shortcut.png")
    except AutoSpecError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{as_text(table.set_index('d'))}\n{folder / 'shortcut.csv'}\n")


def _table(kinds: Sequence[Shortcut], runs: int, jobs: int, path: Path) -> pd.DataFrame:
    """The rates of every effect, written after each; those that ``path`` has of as many studies are kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutoSpecError(f"--output-dir: cannot write {path.parent}: {error.strerror}") from error
    base = check_config(compose_config(CONF, NETWORK))
    before = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS))
    parts = []
    for kind in kinds:
        same = before[(before["d"] == kind.d) & (before["subjects"] == kind.subjects) & (before["runs"] == runs)]
        parts.append(same if len(same) else shortcut_rates(_studies(kind, base, runs, jobs)))
        write_table(pd.concat(parts, ignore_index=True), path, COLUMNS)
    return pd.concat(parts, ignore_index=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="studies of each effect (default: 200)")
    parser.add_argument("--d", type=float, nargs="+", default=[0.0, D / 2, D], help="effects (default: 0 0.4 0.8)")
    parser.add_argument("--subjects", type=int, default=SUBJECTS, help="of a study, a multiple of 8 (default: 80)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--output-dir", default="outputs", help="as output_dir of `autospec run`")
    return parser


def _kinds(arguments: argparse.Namespace) -> list[Shortcut]:
    if min(arguments.runs, arguments.jobs) < 1:
        raise AutoSpecError("--runs and --jobs must be 1 or more")
    if arguments.subjects < 24 or arguments.subjects % 8:
        raise AutoSpecError(f"--subjects {arguments.subjects}: must be a multiple of 8, 24 or more")
    return [Shortcut(d, arguments.subjects) for d in arguments.d]


def _studies(kind: Shortcut, base: ExperimentConfig, runs: int, jobs: int) -> pd.DataFrame:
    """A row for each study and test; the seeds of two effects are apart."""
    first = 1_000_000 + round(1000 * kind.d) * 10_000
    work = (joblib.delayed(_several)(kind, base, range(first + at, first + runs, jobs)) for at in range(jobs))
    table = pd.concat(joblib.Parallel(n_jobs=jobs)(work), ignore_index=True)
    log.info("d = %g: %d studies", kind.d, runs)
    return table


def _several(kind: Shortcut, base: ExperimentConfig, seeds: Sequence[int]) -> pd.DataFrame:
    torch.set_num_threads(1)
    rows = [
        {"d": kind.d, "subjects": kind.subjects, "test": test, "p": p}
        for seed in seeds
        for test, p in shortcut_study(kind, base, seed).items()
    ]
    return pd.DataFrame(rows, columns=["d", "subjects", "test", "p"])
