"""The tests that a panel of differences shows: the valid ones where there are any, the paper's on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

Key = tuple[str, str, str]

SIGNED = ("median_log2_ratio", "log2_ratio", "excess_log2_ratio", "t")
"""Columns that change their sign when a pair is turned round."""
SWAPPED = {f"{name}_{side}": f"{name}_{other}" for name in ("group", "size", "mean") for side, other in ("ab", "ba")}
"""Columns whose names are swapped when a pair is."""
AGREEMENT, SIGNIFICANT = 0.75, 0.05
"""A group is called larger where so many of the singular values say so, and all whose q is below 0.05."""
INTERVAL = ("low", "high")
"""Columns of an effect's interval, where there is one: turned round, each is the other's with its sign changed."""


def orient(tests: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Take the rows of some pairs out of a table of tests, first and second group as in ``pairs``.

    Args:
        tests: A table with the columns of ``figure_table.COLUMNS``.
        pairs: Pairs of groups, whether or not in the table's order.

    Returns:
        Their rows; where a pair is turned, so are the signs of its differences.
    """
    parts = []
    for a, b in pairs:
        same = tests[(tests["group_a"] == a) & (tests["group_b"] == b)]
        turned = tests[(tests["group_a"] == b) & (tests["group_b"] == a)]
        flipped = _turn(turned)
        parts += [part for part in (same, flipped) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else tests.iloc[:0]


def _turn(tests: pd.DataFrame) -> pd.DataFrame:
    """The same tests with first and second group swapped."""
    # a log ratio of b over a is minus that of a over b; names are swapped, so columns are put in order again
    signed = {name: -tests[name] for name in SIGNED}
    if set(INTERVAL) <= set(tests.columns):
        signed |= {one: -tests[other] for one, other in zip(INTERVAL, INTERVAL[::-1], strict=True)}
    return tests.assign(**signed).rename(columns=SWAPPED)[tests.columns]


def drawn_rows(tests: pd.DataFrame) -> pd.DataFrame:
    """Take what margins show out of a table of tests.

    Args:
        tests: A table with the columns of ``figure_table.COLUMNS``.

    Returns:
        The permutation tests' excess with q as p; where a layer and pair has no test, plain medians without p.
    """
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
    """Say in a few words what the primary test of each layer and pair found.

    Args:
        tests: A table with the columns of ``figure_table.COLUMNS``.
        label: Names a group for readers.

    Returns:
        By layer, first and second group, such as ``p = 0.020, SZ larger`` or ``p = 0.300, no evidence``.
    """
    primary = tests[(tests["test"] == "permutation") & (tests["per"] == "trajectory")]
    words: dict[Key, str] = {}
    for row in primary.to_dict("records"):
        key = str(row["layer"]), str(row["group_a"]), str(row["group_b"])
        words[key] = "not tested"
        if np.isfinite(row["p_family"]):
            verdict = direction(tests, key, label) if row["p_family"] < SIGNIFICANT else "no evidence"
            words[key] = f"p = {row['p_family']:.3f}, {verdict}"
    return words


def direction(tests: pd.DataFrame, key: Key, label: Callable[[str], str] = str) -> str:
    """Say which group is larger, where the singular values agree on it.

    Args:
        tests: The tests of one panel, with the columns of ``figure_table.COLUMNS``.
        key: Layer, first and second group.
        label: Names a group for readers.

    Returns:
        Such as ``SZ larger``; ``mixed signs`` where fewer than three in four indices, or not all that are marked,
        have the sign of the median; ``direction open`` where the effect's interval has 0 in it.
    """
    of_key = tests[["layer", "group_a", "group_b"]].eq(list(key)).all(axis=1) & (tests["test"] == "permutation")
    (whole,) = tests[of_key & (tests["per"] == "trajectory")].to_dict("records")
    larger = whole["larger"]
    indices = tests[of_key & (tests["per"] == "index") & tests["excess_log2_ratio"].notna()]
    agree = np.sign(indices["excess_log2_ratio"]) == (1 if larger == key[1] else -1)
    marked = agree[indices["q"] < SIGNIFICANT] if len(indices) else agree
    if not larger or not marked.all() or (len(agree) and agree.mean() < AGREEMENT):
        return "mixed signs"
    low, high = (whole.get(end, np.nan) for end in INTERVAL)
    return "direction open" if low <= 0 <= high else f"{label(larger)} larger"


def left_out(tests: pd.DataFrame, label: Callable[[str], str] = str) -> tuple[str, ...]:
    """Say which pairs are not tested in which layers, and why.

    Args:
        tests: A table with the columns of ``figure_table.COLUMNS``.
        label: Names a group for readers.

    Returns:
        A sentence for each reason and choice of layers.
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


def retrained(tests: pd.DataFrame) -> tuple[str, ...]:
    """Say that each permutation of a panel's tests is a network of its own, where it is.

    Args:
        tests: A table with the columns of ``figure_table.COLUMNS``.

    Returns:
        A sentence, or none.
    """
    if "networks" not in tests or not tests["networks"].max() > 1:
        return ()
    count = int(tests["networks"].max()) - 1
    return (
        f"The groups are what is learned, so each of {count} permutations is a network trained anew, compared in "
        f"float64 where the map is grey, too; the smallest possible p is {1 / (count + 1):.2g}.",
    )
