"""Time training with and without spectra: every engine, what a user would write instead, and other libraries.

    python scripts/benchmark.py
    python scripts/benchmark.py --models mlp,bert --methods 'fast;hooks' --rounds 5 --no-memory --no-growth
    python scripts/benchmark.py --processes 2      # training in several processes alone: processes.md

One thread, the arms interleaved in one process, processor time over that of plain training, which is timed twice in
each round; the peak memory of each arm in a process of its own. Writes benchmark.json, benchmark.md and benchmark.png
below outputs/benchmark/. Opacus and BackPACK: pip install 'autospec-torch[benchmark]'.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

from autospec.errors import AutoSpecError
from autospec.experiments.benchmark.arms import ARMS, PLAIN, PLAIN_AGAIN
from autospec.experiments.benchmark.growth import AXES, Point, curve
from autospec.experiments.benchmark.page import page
from autospec.experiments.benchmark.picture import draw_bars
from autospec.experiments.benchmark.problems import NAMES, problem
from autospec.experiments.benchmark.rounds import peak_memory, time_ratios
from autospec.experiments.benchmark.several import MODELS, costs, table
from autospec.experiments.benchmark.table import Row, read_json, time_table, write_json

log = logging.getLogger("autospec.experiments.benchmark")

KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""Settings of glibc by which a program keeps the memory that it has freed."""


def main() -> None:
    """Measure and write the page after each model; exits with 1 after a mistake."""
    arguments = _parser().parse_args()
    _keep_memory()
    warnings.simplefilter("ignore")  # of what is left out of a model, and of other libraries
    if arguments.memory_of:
        model, method = arguments.memory_of
        sys.stdout.write(json.dumps(peak_memory(problem(model), method)))
        return
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        _measure_several(arguments) if arguments.processes > 1 else _measure(arguments)
    except AutoSpecError as error:
        sys.exit(str(error))


def _keep_memory() -> None:
    """Begin again as a program that keeps what it has freed.

    glibc gives memory back and gets it anew at every step, or does not, as chance has it: of plain training of an LSTM
    that is half of the time, or nothing.
    """
    if sys.platform == "linux" and not KEPT.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**KEPT, **os.environ})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(NAMES), help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--methods", default="", help=f"some of {'; '.join(ARMS)}; separated by ;")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default: 15)")
    parser.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    parser.add_argument("--no-growth", action="store_true", help="leave the growth curves out")
    parser.add_argument("--keep", action="store_true", help="keep the rows of other models that are there already")
    parser.add_argument("--processes", type=int, default=1, help="time training in so many processes instead")
    parser.add_argument("--note", default="", help="a sentence for the page on how it was measured")
    parser.add_argument("--output-dir", default="outputs", help="as output_dir of run.py")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    return parser


def _measure(arguments: argparse.Namespace) -> None:
    methods = [name.strip() for name in arguments.methods.split(";") if name.strip()] or list(ARMS)
    unknown = [name for name in methods if name not in ARMS]
    if unknown or arguments.rounds < 1:
        raise AutoSpecError(f"--methods {unknown}: allowed are {'; '.join(ARMS)}; --rounds must be 1 or more")
    folder = Path(arguments.output_dir) / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    models = arguments.models.split(",")
    kept = read_json(folder / "benchmark.json") if arguments.keep and (folder / "benchmark.json").exists() else []
    rows = [row for row in kept if row.model not in models]
    for model in models:
        rows += _rows_of(model, methods, arguments.rounds, not arguments.no_memory)
        rows.sort(key=lambda row: NAMES.index(row.model))
        _write(folder, rows, [], arguments)
    points: list[Point] = []
    for axis in () if arguments.no_growth else AXES:
        points += curve(axis)
        _write(folder, rows, points, arguments)
    log.info("%s", time_table(rows))


def _measure_several(arguments: argparse.Namespace) -> None:
    """Write what recording costs in several processes."""
    folder = Path(arguments.output_dir) / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    written = table(costs(list(MODELS), arguments.processes, arguments.rounds))
    (folder / "processes.md").write_text(written)
    log.info("%s", written)


def _rows_of(model: str, methods: list[str], rounds: int, with_memory: bool) -> list[Row]:
    ratios, reasons = time_ratios(problem(model), methods, rounds)
    memory = _memory_ratios(model, list(ratios)) if with_memory else {}
    rows = [Row.of(model, name, of_arm, memory.get(name)) for name, of_arm in ratios.items() if name != PLAIN]
    rows += [Row(model, name, None, reason=reason) for name, reason in reasons.items()]
    rows.sort(key=lambda row: list(ARMS).index(row.method))
    log.info("%s: %s", model, ", ".join(f"{row.method} {row.time_ratio:.2f}" for row in rows if row.time_ratio))
    return rows


def _write(folder: Path, rows: list[Row], points: list[Point], arguments: argparse.Namespace) -> None:
    write_json(rows, folder / "benchmark.json")
    (folder / "benchmark.md").write_text(page(rows, points, arguments.rounds, arguments.note))
    draw_bars(rows, folder / "benchmark.png")


def _memory_ratios(model: str, methods: list[str]) -> dict[str, float]:
    """What each arm's peak adds to the process, over what plain training's adds."""
    added = {}
    for method in methods:
        command = [sys.executable, __file__, "--memory-of", model, method]
        before, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        added[method] = peak - before
    return {method: extra / added[PLAIN] for method, extra in added.items() if method != PLAIN_AGAIN}


if __name__ == "__main__":
    main()
