"""The table of a figure: every panel's tests, and a dictionary of its columns beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from autospec.analysis.paper_tests import COLUMNS as TEST_COLUMNS
from autospec.analysis.paper_tests import paper_tests
from autospec.groups import pairs_of
from autospec.store.read import Spectra
from autospec.store.write import replaced

PANEL_COLUMNS = {
    "figure": "The figure's number in the paper.",
    "panel": "The panel whose run this is.",
    "run_id": "The run, a folder below outputs/runs.",
    "simulated": "Whether the run's data are simulated.",
}
SIZE_COLUMNS = {
    "size_a": "People in the first group.",
    "size_b": "People in the second group.",
    "small_group": "Whether either group has fewer people than figure.min_group.",
}
COLUMNS = {**PANEL_COLUMNS, **TEST_COLUMNS, **SIZE_COLUMNS}


def panel_table(spectra: Spectra, figure: int, panel: str, min_group: int) -> pd.DataFrame:
    """Every test of one panel's run, with the columns of ``COLUMNS``; every pair of groups that share no person."""
    pairs = pairs_of(spectra.group_names, spectra.members)
    recorded = [name for name in ("gradient", "activation", "adjoint") if name in spectra[spectra.layers[0]]]
    tests = pd.concat([paper_tests(spectra.to_frame(name), pairs, name) for name in recorded], ignore_index=True)
    size = spectra.groups.set_index("group")["size"]
    tests = tests.assign(figure=figure, panel=panel, run_id=spectra.run_id, simulated=spectra.simulated)
    tests = tests.assign(size_a=tests["group_a"].map(size), size_b=tests["group_b"].map(size))
    tests["small_group"] = tests[["size_a", "size_b"]].min(axis=1) < min_group
    return tests[list(COLUMNS)]


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV and, beside it, the meaning of its columns as JSON."""
    with replaced(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g")
    with replaced(path.with_suffix(".json")) as temporary:
        described = {name: {"Description": text} for name, text in COLUMNS.items()}
        temporary.write_text(json.dumps(described, indent=2) + "\n")
