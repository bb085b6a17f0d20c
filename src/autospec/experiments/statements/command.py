"""Put the paper's statements to the test.

    python scripts/statements.py
    python scripts/statements.py --seeds 40 --jobs 2
    python scripts/statements.py dataset.table=aseg.tsv dataset.participants=participants.tsv

Trains small networks with many seeds; writes outputs/statements/statements.csv, the same as Markdown, and a picture.
Overrides go to the FreeSurfer networks alone: a table of one's own takes the place of the simulated one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import joblib
import torch

from autospec.errors import AutoSpecError
from autospec.experiments.launch.console import log_to_console
from autospec.experiments.statements.networks import NETWORKS, SeedRecord, record_seed
from autospec.experiments.statements.picture import draw_statements
from autospec.experiments.statements.table import COLUMNS, markdown, statement_table

log = logging.getLogger("autospec.experiments.statements")
FIRST_SEED = 1000


def main() -> None:
    """Train every seed, then judge every statement; exits with 1 after a mistake."""
    log_to_console()
    arguments = _parser().parse_args()
    folder = Path(arguments.output_dir) / "statements"
    try:
        seeds = _train(arguments.seeds, arguments.jobs, arguments.overrides)
        from autospec.analysis.figure_table import write_table

        folder.mkdir(parents=True, exist_ok=True)
        table = statement_table(seeds)
        write_table(table, folder / "statements.csv", COLUMNS)
        (folder / "statements.md").write_text(f"{markdown(table)}\n", "utf-8")
        draw_statements(table, folder / "statements.png")
    except AutoSpecError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{markdown(table)}\n{folder / 'statements.csv'}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="seeds of networks and simulated data (default: 20)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--output-dir", default="outputs", help="as output_dir of `autospec run`")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the FreeSurfer networks")
    return parser


def _train(seeds: int, jobs: int, overrides: Sequence[str]) -> list[SeedRecord]:
    """The runs of every seed."""
    if seeds < 2 or jobs < 1:
        raise AutoSpecError("--seeds must be 2 or more, --jobs 1 or more: a seed is measured against the next")
    began = time.monotonic()
    work = (joblib.delayed(_one)(FIRST_SEED + seed, overrides) for seed in range(seeds))
    records: list[SeedRecord] = []
    for record in joblib.Parallel(n_jobs=jobs, return_as="generator")(work):
        records.append(record)
        log.info("%d of %d seeds, %.0f s", len(records), seeds, time.monotonic() - began)
    return records


def _one(seed: int, overrides: Sequence[str]) -> SeedRecord:
    torch.set_num_threads(1)
    return record_seed(seed, tuple(NETWORKS), overrides)
