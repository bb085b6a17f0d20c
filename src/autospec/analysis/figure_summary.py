"""The summary of a figure that one reads in a minute: a row for each panel, layer and pair, with a verdict in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from autospec.analysis.joint_tests import JOINT_TESTS
from autospec.analysis.summary import direction, orient
from autospec.store.groups import Pair
from autospec.store.permuted_pairs import NOT_ASKED
from autospec.store.schema import COVARIATE, GRADIENT, OMNIBUS

ALPHA = 0.05
PRIMARY = ("permutation", *JOINT_TESTS)

COLUMNS = {
    "panel": "The panel.",
    "layer": "The layer, by the name of its weight.",
    "group_a": "The first group of the pair, as the panel names it first; or all groups that are tested at once, or a "
    "covariate.",
    "group_b": "The second group; empty for all groups at once and for a covariate.",
    "effect": "Median log2 ratio, first group over second, less its mean over permuted labels: 1 is twice as large. Of "
    "all groups at once the SD over groups of such logarithms; of a covariate a rank correlation.",
    "low": "Lower end of its 95 % interval; NaN where none was made.",
    "high": "Upper end of its 95 % interval.",
    "p": "p of the primary test (permutation, whole trajectory); NaN where there is none.",
    "p_family": "The same, family-wise over the layers and pairs of the panel: the one that the verdict goes by.",
    "verdict": "no evidence; differs: which group is larger (mixed signs: singular values disagree; direction open: "
    "the effect's interval has 0 in it), and whether in scale (all singular values alike) or in shape; or not tested, "
    "and why.",
}
"""Every column of the summary and what it means."""


def summarise(tests: pd.DataFrame, label: Callable[[str], str] = str) -> pd.DataFrame:
    """Summarise the tests of a figure or of one panel.

    Args:
        tests: A table with the columns of ``figure_table.COLUMNS``; descriptive tests in it take no part.
        label: Names a group for readers, in verdicts.

    Returns:
        A row for each panel, layer and pair, with the columns of ``COLUMNS``; pairs that nobody asked to test are left
        out where others were asked for.
    """
    of_gradient = tests[tests["statistic"] == GRADIENT]
    primary = of_gradient[of_gradient["test"].isin(PRIMARY) & (of_gradient["per"] == "trajectory")]
    asked = primary[primary["note"] != NOT_ASKED]
    rows = [_row(row, of_gradient, label) for row in (asked if len(asked) else primary).to_dict("records")]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(row: dict[Any, Any], tests: pd.DataFrame, label: Callable[[str], str]) -> dict[str, Any]:
    of_panel = tests[tests["panel"] == row["panel"]]
    values = {name: row[name] for name in ("panel", "layer", "group_a", "group_b", "p", "p_family")}
    interval = {name: row.get(name, np.nan) for name in ("low", "high")}
    effect = row["rank_correlation" if row["test"] == COVARIATE else "excess_log2_ratio"]
    return {**values, **interval, "effect": effect, "verdict": _verdict(row, of_panel, label)}


def _verdict(row: dict[Any, Any], tests: pd.DataFrame, label: Callable[[str], str]) -> str:
    """The result in words; whether scale or shape by the family-wise p of the two component tests."""
    few = ", few subjects" if row.get("small_group") else ""
    if not np.isfinite(row["p_family"]):
        return f"not tested: {row['note']}" if row["note"] else "not tested"
    if row["p_family"] >= ALPHA:
        return f"no evidence{few}"
    if row["test"] == COVARIATE:
        return f"goes with {row['group_a']}: median rank correlation {row['rank_correlation']:+.2f}{few}"
    if row["test"] == OMNIBUS:
        return f"groups differ: {label(row['larger'])} largest{few}"
    key = row["layer"], row["group_a"], row["group_b"]
    same = tests[["layer", "group_a", "group_b"]].eq(list(key)).all(axis=1) & (tests["per"] == "trajectory")
    p_family = tests[same].set_index("test")["p_family"]
    is_significant = {kind: p_family.get(f"permutation_{kind}", np.nan) < ALPHA for kind in ("scale", "shape")}
    made_of = {(True, True): ", scale and shape", (True, False): ", scale rather than shape"}
    made_of |= {(False, True): ", shape rather than scale", (False, False): ""}
    return f"differs: {direction(tests, key, label)}{made_of[is_significant['scale'], is_significant['shape']]}{few}"


def as_drawn(tests: pd.DataFrame, in_front: Sequence[Pair]) -> pd.DataFrame:
    """Turn the pairs of a table round that a figure draws the other way, so that signs agree with the picture.

    Args:
        tests: A table with the columns of ``figure_table.COLUMNS``.
        in_front: The pairs that the figure draws.

    Returns:
        The same rows; of turned pairs with the signs of their differences turned, the pairs in front first.
    """
    present = dict.fromkeys(zip(tests["group_a"], tests["group_b"], strict=True))
    drawn = [pair for pair in in_front if pair in present or pair[::-1] in present]
    others = [pair for pair in present if pair not in drawn and pair[::-1] not in drawn]
    return orient(tests, [*drawn, *others])


KINDS = ("inferential", "exploratory", "descriptive")
DESCRIPTIVE_P = "descriptive_p"


def apart(tests: pd.DataFrame) -> pd.DataFrame:
    """Set descriptive tests apart: below all others, their p in a column of its own, so that no filter on p meets them.

    Args:
        tests: A table with the columns of ``figure_table.COLUMNS``.

    Returns:
        The same rows, with the column ``descriptive_p`` after ``p``.
    """
    descriptive = tests["kind"] == "descriptive"
    order = tests["kind"].map({kind: place for place, kind in enumerate(KINDS)})
    table = tests.assign(p=tests["p"].mask(descriptive))
    table.insert(list(table.columns).index("p") + 1, DESCRIPTIVE_P, tests["p"].where(descriptive))
    # stable: within a kind, rows keep the order of panels, layers and pairs
    return table.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)
