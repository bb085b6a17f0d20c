"""Tables of tests: what is inferred in full, and of the rest the smallest p, as many as a page can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from autospec.analysis.figure_table import COLUMNS
from autospec.analysis.permutation import permutation_tests
from autospec.analysis.summary import left_out
from autospec.errors import AutoSpecError
from autospec.figures.report.pictures import name_of
from autospec.store.groups import pairs_of
from autospec.store.read import Spectra
from autospec.store.schema import GRADIENT
from autospec.webpage.document import escape
from autospec.webpage.table import Column, render_table

MOST_ROWS = 600
ROWS_AT_ONCE = 50_000
"""So many are in memory while a table is read."""
SHOWN = {
    "panel": "panel",
    "layer": "layer",
    "statistic": "statistic",
    "group_a": "first",
    "group_b": "second",
    "test": "test",
    "kind": "kind",
    "per": "per",
    "at": "at",
    "n": "n",
    "p": "p",
    "p_family": "p, family-wise",
    "q": "q",
    "excess_log2_ratio": "excess log2 ratio",
    "median_log2_ratio": "median log2 ratio",
    "larger": "larger",
    "note": "note",
}
"""Columns of a page's table, and what stands above them."""
CHOSEN_BY = frozenset({"panel", "layer", "statistic", "group_a", "group_b", "test", "kind", "per"})
NUMBERS = ("at", "n", "p", "p_family", "q", "excess_log2_ratio", "median_log2_ratio")


def figure_tests(path: Path) -> str:
    """Write the table of a figure's tests.

    Args:
        path: The CSV file; a JSON file beside it explains its columns.

    Returns:
        HTML.

    Raises:
        AutoSpecError: It is no table of tests.
    """
    shown, rows = _read(path)
    said = f"<p>{escape(_selection(len(shown), rows, path.name))}</p>" if len(shown) < rows else ""
    return f"<h3>{escape(name_of(path))}</h3>{said}{_table(shown, name_of(path), _meanings(path))}"


def run_tests(spectra: Spectra) -> str:
    """Write the tests of one run: of each layer and pair the primary one, or why there is none.

    Args:
        spectra: The spectra of a run.

    Returns:
        HTML; nothing where there are no two groups to compare.
    """
    pairs = pairs_of(spectra.group_names, spectra.members)
    if not pairs or not spectra.layers:
        return ""
    tests = permutation_tests([spectra.permutations], spectra.layers, pairs, finer=False)
    tested = tests[tests["p"].notna()]
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in left_out(tests))
    if not len(tested):
        return f"<h4>Tests</h4>{sentences}"
    shown = tested.head(MOST_ROWS)
    said = f"<p>{len(shown)} of {len(tested)} tests.</p>" if len(shown) < len(tested) else ""
    return f"<h4>Tests</h4>{sentences}{said}{_table(shown, 'tests of the run', COLUMNS)}"


def _selection(shown: int, rows: int, file: str) -> str:
    return (
        f"{shown} of {rows} rows: the inferential ones first, then exploratory, then descriptive ones, of each kind "
        f"those with the smallest p. So many small p say nothing by themselves; all rows are in {file}."
    )


def _table(tests: pd.DataFrame, name: str, meanings: Mapping[str, str]) -> str:
    columns = [column for column in SHOWN if column in tests and _says_something(tests[column])]
    heads = [Column(SHOWN[column], meanings.get(column, ""), column in CHOSEN_BY) for column in columns]
    rows: list[Sequence[object]] = list(tests[columns].astype(object).itertuples(index=False, name=None))
    return render_table(heads, rows, name, find=True)


def _says_something(column: pd.Series) -> bool:
    if column.name == "statistic":
        return bool((column != GRADIENT).any())
    return bool((column.notna() & (column.astype(str) != "")).any())


def _read(path: Path) -> tuple[pd.DataFrame, int]:
    """The rows that are shown, by kind and in the table's order, and how many there are in all."""
    kept, total = pd.DataFrame({"kind": []}), 0
    try:
        with pd.read_csv(path, dtype=str, keep_default_na=False, chunksize=ROWS_AT_ONCE) as chunks:
            for chunk in chunks:
                total += len(chunk)
                kept = _most_telling(pd.concat([kept, _set_types(chunk)]))
    except (OSError, ValueError, KeyError) as error:
        raise AutoSpecError(f"{path} cannot be read as a table of tests ({error})") from error
    order = pd.DataFrame({"rank": _rank(kept), "place": kept.index}, kept.index).sort_values(["rank", "place"])
    return kept.loc[order.index], total


def _set_types(chunk: pd.DataFrame) -> pd.DataFrame:
    """Group names stay text, whatever they look like; numbers become numbers."""
    numbers = {name: pd.to_numeric(chunk[name], errors="coerce") for name in NUMBERS if name in chunk}
    chunk["test"], chunk["kind"], chunk["p"]  # a table of tests has these; KeyError where it is another
    return chunk[[name for name in SHOWN if name in chunk]].assign(**numbers)


def _most_telling(tests: pd.DataFrame) -> pd.DataFrame:
    """The first rows by kind, of one kind those with the smallest p."""
    order = pd.DataFrame({"rank": _rank(tests), "p": tests["p"]}).sort_values(["rank", "p"], kind="stable")
    return tests.loc[order.index[:MOST_ROWS]]


def _rank(tests: pd.DataFrame) -> pd.Series:
    return tests["kind"].map({"inferential": 0, "exploratory": 1}).fillna(2)


def _meanings(path: Path) -> dict[str, str]:
    try:
        described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return {str(name): str(entry["Description"]) for name, entry in described.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return COLUMNS
