"""The table of a figure: every panel's tests, and a dictionary of its columns beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from autospec.analysis.comparison import Comparison, compare
from autospec.analysis.paper_tests import COLUMNS as TEST_COLUMNS
from autospec.analysis.paper_tests import paper_tests
from autospec.analysis.permutation import COLUMNS as PERMUTATION_COLUMNS
from autospec.analysis.permutation import permutation_tests
from autospec.analysis.run_tables import RunTables
from autospec.harmless import in_cell
from autospec.store.atomic import write_atomically
from autospec.store.groups import Pair
from autospec.store.permutations import PermutationRatios
from autospec.store.schema import GRADIENT, SPECTRUM_NAMES

PANEL_COLUMNS = {
    "figure": "The figure's number in the paper.",
    "panel": "The panel whose run this is.",
    "run_id": "The run, a folder below outputs/runs.",
    "simulated": "Whether the run's data are simulated.",
}
SIZE_COLUMNS = {
    "size_a": "Subjects in the first group.",
    "size_b": "Subjects in the second group.",
    "small_group": "Whether either group has fewer subjects than figure.min_group.",
}


def _join(name: str, text: str) -> str:
    other = PERMUTATION_COLUMNS.get(name, text)
    return text if other == text else f"{text} Permutation tests: {other}"


JOINED = {name: _join(name, text) for name, text in TEST_COLUMNS.items()}
COLUMNS = {**PANEL_COLUMNS, **PERMUTATION_COLUMNS, **JOINED, **SIZE_COLUMNS}
"""Every column of a figure's table: those of the paper's tests and of the permutation tests, NaN where one has none."""


def panel_table(
    seeds: Sequence[RunTables],
    figure: int,
    panel: str,
    min_group: int,
    retrained: Sequence[PermutationRatios] = (),
    plain: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Test every pair of groups of one panel's run.

    Args:
        seeds: The run, then runs that differ from it in their seed, which take part in permutation tests.
        figure: The figure's number.
        panel: The panel's letter.
        min_group: Smaller groups are flagged.
        retrained: Of each run, the ratios of networks that were trained anew with permuted labels.
        plain: The tests of the inputs (``plain_tests``), where there are any.

    Returns:
        A row per test, with the columns of ``COLUMNS``.
    """
    run, spectra = seeds[0], seeds[0].spectra
    recorded = [name for name in SPECTRUM_NAMES if name in spectra[spectra.layers[0]] and name != GRADIENT]
    others = {name: compare(spectra.to_frame(name), run.pairs) for name in recorded}
    compared = {GRADIENT: run.comparisons, **others}
    tests = every_test([one.spectra.permutations for one in seeds], spectra.layers, run.pairs, compared, retrained)
    if plain is not None and len(plain):
        tests = pd.concat([tests, _complete(plain)], ignore_index=True)
    tests = tests.assign(figure=figure, panel=panel, run_id=spectra.run_id, simulated=spectra.simulated)
    # of all groups at once, or a covariate, there is no size
    tests = tests.assign(**{f"size_{side}": tests[f"group_{side}"].map(spectra.sizes) for side in "ab"})
    tests["small_group"] = tests[["size_a", "size_b"]].min(axis=1) < min_group
    return tests[list(COLUMNS)]


def every_test(
    permutations: Sequence[PermutationRatios | None],
    layers: Sequence[str],
    pairs: Sequence[Pair],
    compared: Mapping[str, Iterable[Comparison]],
    retrained: Sequence[PermutationRatios] = (),
) -> pd.DataFrame:
    """Make the permutation tests and the paper's tests.

    Args:
        permutations: The permutations of a run, or of runs that differ in their seed; None for a run without any.
        layers: The layers of the permutation tests, one family.
        pairs: Their pairs of groups.
        compared: By statistic the comparisons that the paper's tests are made of.
        retrained: Of each run, the ratios of networks that were trained anew with permuted labels; they replace what
            the runs themselves say of their pairs.

    Returns:
        A row per test, with the columns of both kinds of tests.
    """
    asked = {pair for ratios in retrained[:1] for pair in (*ratios.pairs, *ratios.refused)}
    learned = [pair for pair in pairs if pair in asked or pair[::-1] in asked]
    parts = [permutation_tests(permutations, list(layers), [pair for pair in pairs if pair not in learned])]
    if learned:
        parts.append(permutation_tests(retrained, list(layers), learned, retrained=True))
    parts += [paper_tests(comparisons, name) for name, comparisons in compared.items()]
    return pd.concat([_complete(part) for part in parts if len(part)], ignore_index=True)


def _complete(tests: pd.DataFrame) -> pd.DataFrame:
    """Add to one kind of test the columns that only the other has: empty text, or NaN."""
    missing = {
        name: "" if name in ("strata", "larger", "note") else np.nan for name in COLUMNS if name not in tests.columns
    }
    return tests.assign(**missing)


def write_table(table: pd.DataFrame, path: Path, columns: Mapping[str, str] = COLUMNS) -> None:
    """Write a table as CSV and, beside it, the meaning of its columns as JSON.

    Args:
        table: The table.
        path: The CSV file; the JSON file has the same name but its ending.
        columns: What each column means.

    Raises:
        AutoSpecError: A file cannot be written.
    """
    harmless = table.apply(
        lambda column: column.map(in_cell)
    )  # a name like =SUM(A1) would be a formula in a spreadsheet
    with write_atomically(path) as temporary:
        harmless.to_csv(temporary, index=False, float_format="%.10g")
    with write_atomically(path.with_suffix(".json")) as temporary:
        described = {name: {"Description": text} for name, text in columns.items()}
        temporary.write_text(json.dumps(described, indent=2) + "\n")
