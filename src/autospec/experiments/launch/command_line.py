"""What ``autospec run`` does: compose, check, run; every mistake ends in a short message and an exit status."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from autospec.errors import AutoSpecError
from autospec.experiments import CONF
from autospec.experiments.config.messages import explain, in_one_line
from autospec.experiments.config.registry import register_schemas
from autospec.experiments.launch.overrides import check_overrides, drawing_command
from autospec.experiments.launch.plugins import register_plugins
from autospec.experiments.launch.workers import end_with_parent, end_worker, is_worker
from autospec.experiments.plan import plan_run

log = logging.getLogger(__name__)

TRAINS_ONLY = "AUTOSPEC_TRAINS_ONLY"
"""The environment variable that ``autospec figures`` sets for its sweep: nobody needs to be told how to draw."""

SWEEP = {"-m", "--multirun"}


def main(conf: Path = CONF) -> None:
    """Compose the configuration from ``conf`` and the command line, and run it; exits with 1 after a mistake."""
    register_schemas()
    register_plugins()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # its exceptions reach us, instead of pages on the screen
    sweep = bool(SWEEP & set(sys.argv[1:]))
    try:
        check_overrides(sys.argv[1:], sweep)
        drawn_by = drawing_command(sys.argv[1:]) if sweep and TRAINS_ONLY not in os.environ else None
        if sweep:
            sys.argv[1:] = sweep_arguments(sys.argv[1:])
        mistakes: list[AutoSpecError] = []
        task = run_in_sweep if sweep else _noting(mistakes)
        hydra.main(version_base="1.3", config_path=str(conf.resolve()), config_name="config")(task)()
        if mistakes:
            raise mistakes[0]
        if drawn_by:
            log.info("the runs of the figure are there; `%s` tests and draws them", drawn_by)
    except (AutoSpecError, HydraException, OmegaConfBaseException) as error:
        sys.exit(explain(error))
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        sys.exit(explain(error))  # figure=1, which Hydra answers with a bare ValueError
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last checkpoint")


def run(config: DictConfig, in_sweep: bool = False) -> None:
    """Make the run of one composed configuration, unless it is complete."""
    command = _command()
    plan = plan_run(config)
    if not plan.to_run:
        log.info("%s is complete; nothing to do", plan.folder.run_id)
        return
    from autospec.experiments.run import run as make_run  # torch is loaded only where something is left to train

    make_run(plan, command, keep_mistakes=in_sweep)


def run_in_sweep(config: DictConfig) -> None:
    """``run``; whatever it raises becomes an error that can travel between processes, its traceback is in the log."""
    end_with_parent()
    try:
        run(config, in_sweep=True)
    except SystemExit as stopped:  # by a signal
        if is_worker():
            end_worker(stopped)
        raise
    except Exception as error:
        raise AutoSpecError(explain(error) if isinstance(error, AutoSpecError) else in_one_line(error)) from error


def sweep_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line of a sweep as Hydra takes it.

    ``-m`` comes first, as its parser wants it. Hydra first composes what all jobs share, which leaves out what has
    several values; where these are data sets or figures, a key of one data set would be looked for in the default one.
    Such keys are given as a choice of one value, so that they too are laid over each job alone.
    """
    values = [argument for argument in arguments if argument not in SWEEP]
    try:
        parsed = OverridesParser.create().parse_overrides([value for value in values if not value.startswith("-")])
    except HydraException:
        return ["-m", *values]  # Hydra says what is wrong with it
    several = {override.key_or_group for override in parsed if override.is_sweep_override()}
    if several & {"dataset", "figure"}:
        for override in parsed:
            single = not override.is_sweep_override() and not override.is_delete()
            if override.key_or_group.startswith("dataset.") and single:
                key, value = str(override.input_line).split("=", 1)
                values[values.index(str(override.input_line))] = f"{key}=choice({value})"
    return ["-m", *values]


def _command() -> str:
    """The command line that makes this one run, also where it was launched as a part of many."""
    return shlex.join(["autospec", "run", *HydraConfig.get().overrides.task])


def _noting(mistakes: list[AutoSpecError]) -> Callable[[DictConfig], None]:
    """``run``, with a user's mistake noted instead of raised: Hydra would print around it."""

    def run_and_note(config: DictConfig) -> None:
        try:
            run(config)
        except AutoSpecError as error:
            mistakes.append(error)

    return run_and_note
