"""Test the groups that a classifier is trained to tell apart, by whole runs with permuted labels.

    autospec retrain figure=fig4 panel=B
    autospec retrain --permutations 199 figure=fig4 panel=B epochs=100

Says what it will cost after the first run; writes outputs/retrain/<run_id>.csv, and beside it as JSON
what each column means.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from autospec.analysis.figure_table import write_table
from autospec.analysis.permutation import COLUMNS
from autospec.errors import AutoSpecError
from autospec.experiments import CONF
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.config.messages import explain
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.launch.console import log_to_console
from autospec.experiments.plan import plan_run
from autospec.experiments.validation.retraining import retrain
from autospec.harmless import visible


def main() -> None:
    """Retrain and write the table; exits with 1 after a mistake."""
    log_to_console()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--permutations", type=int, default=99, help="runs with permuted labels (default: 99)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for `autospec run`")
    arguments = parser.parse_args()
    try:
        config = check_config(compose_config(CONF, arguments.overrides))
        path = _path(config)
        table = retrain(config, arguments.permutations)
    except (AutoSpecError, HydraException, OmegaConfBaseException) as error:
        sys.exit(explain(error))
    write_table(table, path, COLUMNS)
    whole = table[table["per"] == "trajectory"][["layer", "test", "p", "p_family", "larger", "note"]]
    sys.stdout.write(visible(f"{whole.to_string(index=False)}\n{path}\n", keep="\n"))


def _path(config: ExperimentConfig) -> Path:
    """Where the table goes; AutoSpecError before anything is trained where that cannot be written."""
    folder = plan_run(config).folder
    path = Path(config.output_dir) / "retrain" / f"{folder.run_id}.csv"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutoSpecError(f"output_dir: cannot write {path.parent}: {error.strerror}") from error
    return path
