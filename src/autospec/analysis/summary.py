"""Which tests a panel of differences shows: the valid ones where there are any, the paper's on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

Key = tuple[str, str, str]

SIGNED = ("median_log2_ratio", "log2_ratio", "excess_log2_ratio", "t")
"""Columns that change their sign when a pair is turned round."""
SWAPPED = {f"{name}_{side}": f"{name}_{other}" for name in ("group", "size", "mean") for side, other in ("ab", "ba")}
"""Columns that change places."""


def oriented(tests: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The rows of some pairs of a table of tests, first and second group as in ``pairs``."""
    parts = []
    for a, b in pairs:
        same = tests[(tests["group_a"] == a) & (tests["group_b"] == b)]
        turned = tests[(tests["group_a"] == b) & (tests["group_b"] == a)]
        flipped = turned.assign(**{name: -turned[name] for name in SIGNED}).rename(columns=SWAPPED)[tests.columns]
        parts += [part for part in (same, flipped) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else tests.iloc[:0]


def drawn_rows(tests: pd.DataFrame) -> pd.DataFrame:
    """What margins show: the permutation tests' excess with q for p; plain medians without p where there is no test."""
    valid = tests["test"] == "permutation"
    finer = tests[valid & (tests["per"] != "trajectory")]
    excess = finer.assign(p=finer["q"], median_log2_ratio=finer["excess_log2_ratio"])
    tested = set(zip(finer["layer"], finer["group_a"], finer["group_b"], strict=True))
    plain = tests[tests["test"] == "paper_scaled"].assign(p=np.nan)
    keys = zip(plain["layer"], plain["group_a"], plain["group_b"], strict=True)
    untested = plain[[key not in tested for key in keys]]
    parts = [part for part in (excess, untested) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else tests.iloc[:0]


def verdicts(tests: pd.DataFrame, label: Callable[[str], str] = str) -> dict[Key, str]:
    """What the primary test of each layer and pair found, in a few words; ``label`` names a group for readers."""
    primary = tests[(tests["test"] == "permutation") & (tests["per"] == "trajectory")]
    found: dict[Key, str] = {}
    for row in primary.to_dict("records"):
        text = "not tested"
        if np.isfinite(row["p_family"]):
            text = f"p = {row['p_family']:.3f}" + (f", {label(row['larger'])} larger" if row["p_family"] < 0.05 else "")
        found[str(row["layer"]), str(row["group_a"]), str(row["group_b"])] = text
    return found


def left_out(tests: pd.DataFrame, label: Callable[[str], str] = str) -> tuple[str, ...]:
    """Which pairs are not tested in which layers, and why: a sentence for each reason and choice of layers.

    ``label`` names a group for readers.
    """
    primary = tests[(tests["test"] == "permutation") & (tests["per"] == "trajectory")]
    layers = primary["layer"].nunique()
    where: dict[tuple[str, str], list[str]] = {}
    for (note, a, b), rows in primary[primary["note"] != ""].groupby(["note", "group_a", "group_b"], sort=False):
        place = "" if len(rows) == layers else f" in {', '.join(rows['layer'])}"
        where.setdefault((str(note), place), []).append(f"{label(str(a))} / {label(str(b))}")
    return tuple(
        f"{' and '.join(pairs)} {'is' if len(pairs) == 1 else 'are'} not tested{place}: {note}."
        for (note, place), pairs in where.items()
    )
