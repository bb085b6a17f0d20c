"""Make figures of the paper: train what is missing, test the groups, draw.

    autospec figures --figure 1
    autospec figures --figure 1 --preset paper --jobs 2 dataset.per_digit=100

Further arguments are those of `autospec run`. What is done already is not done again.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from types import FrameType

import joblib
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from autospec.errors import AutoSpecError
from autospec.experiments import CONF
from autospec.experiments.config.grid import SPECTRA_PANELS, chosen_figures, panels_of_figure
from autospec.experiments.config.messages import explain
from autospec.experiments.launch.command_line import TRAINS_ONLY
from autospec.experiments.launch.console import log_to_console, quietly
from autospec.experiments.launch.workers import end_with_parent, workers_released
from autospec.experiments.plan import Plan, plan_run
from autospec.experiments.report.console_summary import summary_text
from autospec.experiments.report.figure import update_figure
from autospec.experiments.report.figure_plan import FigurePlan, check_comparisons, plan_figure
from autospec.experiments.report.files import FigureFiles
from autospec.experiments.report.retraining import retrain_missing
from autospec.experiments.runs.folder import holder
from autospec.experiments.runs.progress import duration

log = logging.getLogger("autospec.figures")


def main() -> None:
    """Make the figures that the command line names; exits with 1 after a mistake or a failed run."""
    log_to_console()
    arguments = _parser().parse_args()
    try:
        if arguments.jobs < 1:
            raise AutoSpecError(f"--jobs {arguments.jobs}: must be 1 or more")
        _check_overrides(arguments.overrides)
        names = chosen_figures(CONF, arguments.figure)
        overrides = [f"preset={arguments.preset}", *arguments.overrides]
        panels = [panels_of_figure(CONF, name, overrides) for name in names]
        figures = [plan_figure({letter: plan_run(config) for letter, config in one.items()}) for one in panels]
        runs = {plan.folder.path: plan for figure in figures for plan in figure.runs}.values()
        if not all(plan.done for plan in runs):
            _check_quietly(figures)
            _train(names, [*overrides, *_seeds(runs)], arguments.jobs, runs)
        with workers_released():
            updated = _update(figures, arguments.jobs)
        for files in updated:
            sys.stdout.write(f"\n{summary_text(files.number, files.summary)}")
    except (AutoSpecError, HydraException, OmegaConfBaseException) as error:
        sys.exit(explain(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where it was")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", default="all", help="numbers of figures, such as 1 or 1,4 (default: all)")
    parser.add_argument("--preset", default="quick", help="quick (default) or paper")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each (default: 1)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for `autospec run`")
    return parser


def _check_overrides(overrides: Collection[str]) -> None:
    """AutoSpecError for what a figure takes by an option or key of its own."""
    for override in overrides:
        key, _, value = override.partition("=")
        if key.lstrip("+~") in ("figure", "panel", "preset"):
            raise AutoSpecError(f"{override}: figures are chosen by --figure, with all their panels; --preset likewise")
        if key == "seed" and "," in value:
            raise AutoSpecError(f"{override}: a figure of several seeds is figure.seeds=[{value.strip('[]')}]")


def _check_quietly(figures: Collection[FigurePlan]) -> None:
    """Refuse figures that could not be drawn; what their data sets say of themselves, the runs will say."""
    with quietly("autospec.experiments.datasets", level=logging.WARNING):
        for figure in figures:
            check_comparisons(figure)


def _seeds(runs: Collection[Plan]) -> list[str]:
    """The further seeds of a sweep, where ``figure.seeds`` names some."""
    seeds = dict.fromkeys(plan.config.seed for plan in runs)
    return [f"seed={','.join(map(str, seeds))}"] if len(seeds) > 1 else []


def _train(names: list[str], overrides: list[str], jobs: int, runs: Collection[Plan]) -> None:
    """One sweep over all panels that have a run of their own."""
    launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else []
    sweep = [f"figure={','.join(names)}", f"panel={','.join(SPECTRA_PANELS)}", *overrides, *launcher]
    environment = {**os.environ, TRAINS_ONLY: "1"}
    command = [sys.executable, "-m", "autospec.cli", "run", "-m", *sweep]
    with subprocess.Popen(command, env=environment) as process, _passing_on(process):
        if jobs > 1:
            _show_progress(process, runs)
        if process.wait():
            sys.exit(process.returncode)


def _update(figures: Sequence[FigurePlan], jobs: int) -> list[FigureFiles]:
    """The files of every figure: networks with permuted labels by all processes at once, then a figure in each."""
    for figure in figures:
        retrain_missing(figure.tested_runs, jobs)
    return joblib.Parallel(n_jobs=min(jobs, len(figures)))(joblib.delayed(_update_one)(figure) for figure in figures)


def _update_one(figure: FigurePlan) -> FigureFiles:
    """The files of one figure; may be called in a process of its own, where nothing is set up yet."""
    end_with_parent()
    log_to_console()
    return update_figure(figure)


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A context in which a signal that asks us to stop goes to the sweep, which would train on without us."""

    def stop(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    is_main = threading.current_thread() is threading.main_thread()  # elsewhere Python lets nobody handle signals
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP) if is_main}
    before = {number: handler for number, handler in before.items() if handler is signal.SIG_DFL}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_progress(process: subprocess.Popen[bytes], runs: Collection[Plan]) -> None:
    """Say how many runs are done, which are being made and about how long the rest takes, whenever that changes."""
    started, before = time.monotonic(), sum(plan.done for plan in runs)
    shown = ""
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
        done = sum(plan.done for plan in runs)
        now = [plan.folder.run_id for plan in runs if not plan.done and holder(plan.folder)]
        text = f"{done} of {len(runs)} runs done, now {' and '.join(now)}"
        if now and text != shown:
            left_s = (time.monotonic() - started) / (done - before) * (len(runs) - done) if done > before else None
            log.info("%s%s", text, "" if left_s is None else f", about {duration(left_s)} left")
            shown = text
