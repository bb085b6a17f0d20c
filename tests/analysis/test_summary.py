"""What panels G and H say of a table of tests."""

import numpy as np
import pandas as pd

from autospec.analysis.summary import drawn_rows, left_out, orient, retrained, verdicts

REASON = "the groups are what is learned"


def _row(test, per, a="SZ", b="HC", layer="one", **values):
    empty = {"p": np.nan, "q": np.nan, "p_family": np.nan, "t": np.nan, "median_log2_ratio": np.nan}
    empty |= {"log2_ratio": np.nan, "excess_log2_ratio": np.nan, "larger": "", "note": "", "at": 1, "n": 5}
    sides = {f"{name}_{side}": size for name in ("size", "mean") for side, size in (("a", 3), ("b", 4))}
    return {"test": test, "per": per, "group_a": a, "group_b": b, "layer": layer, **sides, **empty, **values}


def _table():
    """SZ and HC are tested in layer one; men and women are not, for one reason; a and b not in layer two."""
    rows = [
        _row("permutation", "trajectory", p=0.01, p_family=0.02, larger="HC"),
        _row("permutation", "epoch", p=0.001, q=0.2, excess_log2_ratio=0.3, log2_ratio=0.5),
        _row("paper_scaled", "epoch", p=1e-9, median_log2_ratio=0.5, t=4.0),
        _row("permutation", "trajectory", layer="two", p=0.3, p_family=0.4, larger="SZ"),
    ]
    for a, b in (("men", "women"), ("old", "young")):
        rows += [_row("permutation", "trajectory", a, b, layer, note=REASON) for layer in ("one", "two")]
        rows.append(_row("paper_scaled", "epoch", a, b, p=1e-9, median_log2_ratio=-0.7))
    rows += [_row("permutation", "trajectory", "a", "b", "one", p=0.5, p_family=0.6)]
    rows += [_row("permutation", "trajectory", "a", "b", "two", note="gradients cancel")]
    return pd.DataFrame(rows)


def test_margins_show_the_valid_test_with_q_and_plain_medians_without_one():
    drawn = drawn_rows(_table())
    tested = drawn[drawn.group_a == "SZ"]
    assert (tested.p.tolist(), tested.median_log2_ratio.tolist()) == ([0.2], [0.3])
    untested = drawn[drawn.group_a == "men"]
    assert untested.p.isna().all()
    assert untested.median_log2_ratio.tolist() == [-0.7]


def test_verdicts_are_family_wise_and_name_the_larger_group():
    found = verdicts(_table())
    assert found["one", "SZ", "HC"] == "p = 0.020, HC larger"
    assert found["two", "SZ", "HC"] == "p = 0.400, no evidence"
    assert found["one", "men", "women"] == "not tested"


def test_what_is_not_tested_is_said_once_for_a_reason():
    assert left_out(_table()) == (
        f"men / women and old / young are not tested: {REASON}.",
        "a / b is not tested in two: gradients cancel.",
    )


def test_a_pair_turned_round_changes_its_signs_and_sides():
    turned = orient(_table(), [("HC", "SZ")])
    epoch = turned[turned.per == "epoch"].iloc[0]
    assert (epoch.group_a, epoch.group_b, epoch.size_a, epoch.size_b) == ("HC", "SZ", 4, 3)
    assert (epoch.excess_log2_ratio, epoch.log2_ratio) == (-0.3, -0.5)
    assert verdicts(turned)["one", "HC", "SZ"] == "p = 0.020, HC larger"


def test_groups_are_named_for_readers():
    named = verdicts(_table(), label=lambda group: f"group {group}")
    assert any("group " in text for text in named.values())
    assert all("group " in sentence for sentence in left_out(_table(), label=lambda group: f"group {group}"))


def test_an_interval_that_is_turned_round_changes_its_ends_and_signs():
    table = _table().assign(low=-0.1, high=0.4)
    turned = orient(table, [("HC", "SZ")])
    assert set(turned["low"]) == {-0.4}
    assert set(turned["high"]) == {0.1}
    assert set(orient(table, [("SZ", "HC")])["low"]) == {-0.1}


def test_a_panel_says_that_its_permutations_are_networks_of_their_own():
    assert retrained(_table()) == retrained(_table().assign(networks=1.0)) == ()
    (sentence,) = retrained(_table().assign(networks=40.0))
    assert "each of 39 permutations is a network trained anew" in sentence
