"""The table of a figure: every panel's tests, and a dictionary of its columns beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from autospec.analysis.paper_tests import COLUMNS as TEST_COLUMNS
from autospec.analysis.paper_tests import paper_tests
from autospec.analysis.permutation import COLUMNS as PERMUTATION_COLUMNS
from autospec.analysis.permutation import permutation_tests
from autospec.store.atomic import write_atomically
from autospec.store.groups import pairs_of
from autospec.store.permutations import read_permutations
from autospec.store.read import Spectra
from autospec.store.schema import SPECTRUM_NAMES

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


def _joined(name: str, text: str) -> str:
    other = PERMUTATION_COLUMNS.get(name, text)
    return text if other == text else f"{text} Permutation tests: {other}"


JOINED = {name: _joined(name, text) for name, text in TEST_COLUMNS.items()}
COLUMNS = {**PANEL_COLUMNS, **PERMUTATION_COLUMNS, **JOINED, **SIZE_COLUMNS}
"""Every column of a figure's table: those of the paper's tests and of the permutation tests, NaN where one has none."""


def panel_table(seeds: Sequence[Spectra], figure: int, panel: str, min_group: int) -> pd.DataFrame:
    """Every test of one panel's run, with the columns of ``COLUMNS``; every pair of groups that share no person.

    The first of ``seeds`` is the run; further ones differ from it in their seed, and take part in permutation tests.
    """
    spectra = seeds[0]
    pairs = pairs_of(spectra.group_names, spectra.members)
    recorded = [name for name in SPECTRUM_NAMES if name in spectra[spectra.layers[0]]]
    nulls = [read_permutations(run.path, run.layers) for run in seeds]
    parts = [permutation_tests(nulls, spectra.layers, pairs)]
    parts += [paper_tests(spectra.to_frame(name), pairs, name) for name in recorded]
    tests = pd.concat([_completed(part) for part in parts if len(part)], ignore_index=True)
    size = spectra.groups.set_index("group")["size"]
    tests = tests.assign(figure=figure, panel=panel, run_id=spectra.run_id, simulated=spectra.simulated)
    tests = tests.assign(size_a=tests["group_a"].map(size), size_b=tests["group_b"].map(size))
    tests["small_group"] = tests[["size_a", "size_b"]].min(axis=1) < min_group
    return tests[list(COLUMNS)]


def _completed(tests: pd.DataFrame) -> pd.DataFrame:
    """One kind of test with the columns that only the other has: empty text, or NaN."""
    missing = {name: "" if name in ("strata", "larger") else np.nan for name in COLUMNS if name not in tests.columns}
    return tests.assign(**missing)


def write_table(table: pd.DataFrame, path: Path, columns: Mapping[str, str] = COLUMNS) -> None:
    """Write a table as CSV and, beside it, the meaning of its columns as JSON."""
    with write_atomically(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g")
    with write_atomically(path.with_suffix(".json")) as temporary:
        described = {name: {"Description": text} for name, text in columns.items()}
        temporary.write_text(json.dumps(described, indent=2) + "\n")
