"""Test the groups that a classifier is trained to tell apart, by networks trained anew with permuted labels.

    autospec retrain figure=fig4 panel=B
    autospec retrain --permutations 199 figure=fig5 panel=B epochs=100

Says beforehand what it costs; writes outputs/retrain/<run_id>.csv, and beside it as JSON what each column means.
The pairs are figure.pairs, or else the first group against the last.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from autospec.analysis.figure_table import write_table
from autospec.analysis.permutation import COLUMNS, permutation_tests
from autospec.errors import AutoSpecError
from autospec.experiments import CONF
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.config.messages import explain
from autospec.experiments.launch.console import log_to_console
from autospec.experiments.plan import plan_run
from autospec.experiments.report.retraining import retrained_ratios


def main() -> None:
    """Retrain and write the table; exits with 1 after a mistake."""
    log_to_console()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--permutations", type=int, default=99, help="networks with permuted labels (default: 99)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for `autospec run`")
    arguments = parser.parse_args()
    try:
        config = check_config(compose_config(CONF, arguments.overrides))
        config = replace(config, introspection=replace(config.introspection, retrain=arguments.permutations))
        plan = plan_run(config)
        ratios = retrained_ratios(plan, arguments.jobs)
    except (AutoSpecError, HydraException, OmegaConfBaseException) as error:
        sys.exit(explain(error))
    if not ratios.pairs:
        sys.exit(f"retrain: {'; '.join(ratios.refused.values())}")
    table = permutation_tests([ratios], list(ratios.ratios), list(ratios.pairs), retrained=True)
    path = Path(config.output_dir) / "retrain" / f"{plan.folder.run_id}.csv"
    write_table(table, path, COLUMNS)
    whole = table[table["per"] == "trajectory"][
        ["layer", "group_a", "group_b", "test", "p", "p_family", "larger", "note"]
    ]
    sys.stdout.write(f"{whole.to_string(index=False)}\n{path}\n")
