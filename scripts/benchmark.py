"""Time training with and without spectra: every engine, and what a user would write instead.

    python scripts/benchmark.py
    python scripts/benchmark.py --models mlp,bert --methods fast,hooks --rounds 5 --no-memory

One thread, the arms interleaved in one process, processor time over that of plain training, which is timed twice in
each round; the peak memory of each arm in a process of its own. Writes outputs/benchmark/benchmark.json and .md.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path

from autospec.errors import AutoSpecError
from autospec.experiments.benchmark.arms import ARMS, PLAIN, PLAIN_AGAIN
from autospec.experiments.benchmark.problems import SHAPES, problem
from autospec.experiments.benchmark.rounds import peak_memory, time_ratios
from autospec.experiments.benchmark.table import Row, markdown, write_json

log = logging.getLogger("autospec.experiments.benchmark")


def main() -> None:
    """Measure and write the table after each model; exits with 1 after a mistake."""
    arguments = _parser().parse_args()
    if arguments.memory_of:
        model, method = arguments.memory_of
        sys.stdout.write(json.dumps(peak_memory(problem(model), method)))
        return
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        _measure(arguments)
    except AutoSpecError as error:
        sys.exit(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(SHAPES), help=f"some of {', '.join(SHAPES)}")
    parser.add_argument("--methods", default="", help=f"some of {'; '.join(ARMS)}; separated by ;")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default: 15)")
    parser.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
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
    rows: list[Row] = []
    for model in arguments.models.split(","):
        ratios = time_ratios(problem(model), methods, arguments.rounds)
        memory = {} if arguments.no_memory else _memory_ratios(model, list(ratios))
        rows += [Row.of(model, name, of_arm, memory.get(name)) for name, of_arm in ratios.items() if name != PLAIN]
        log.info("%s: %s", model, ", ".join(f"{row.method} {row.time_ratio:.2f}" for row in rows if row.model == model))
        write_json(rows, folder / "benchmark.json")
        (folder / "benchmark.md").write_text(f"{markdown(rows)}\n")
    log.info("%s", markdown(rows))


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
