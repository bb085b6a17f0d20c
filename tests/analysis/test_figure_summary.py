"""The summary in words, the table turned as the picture is drawn, descriptive tests set apart."""

import numpy as np
import pandas as pd
import pytest

from autospec.analysis.figure_summary import COLUMNS, apart, as_drawn, summarise
from autospec.store.permuted_pairs import NOT_ASKED

REASON = "diagnosis is what the network learns"


def _row(test="permutation", p_family=np.nan, a="HC", b="SZ", panel="G", **values):
    row = {
        "panel": panel,
        "layer": "head",
        "statistic": "gradient",
        "group_a": a,
        "group_b": b,
        "test": test,
        "kind": "inferential",
        "per": "trajectory",
        "p": p_family,
        "p_family": p_family,
        "excess_log2_ratio": -0.25,
        "log2_ratio": -0.3,
        "median_log2_ratio": np.nan,
        "t": np.nan,
        "larger": "SZ",
        "note": "",
        "size_a": 63,
        "size_b": 61,
        "mean_a": np.nan,
        "mean_b": np.nan,
        "small_group": False,
        "q": np.nan,
    }
    return row | values


def _summary(*rows, **options):
    return summarise(pd.DataFrame(list(rows)), **options)


COMPONENTS = {
    (0.01, 0.30): "differs: SZ larger, scale rather than shape",
    (0.30, 0.01): "differs: SZ larger, shape rather than scale",
    (0.01, 0.01): "differs: SZ larger, scale and shape",
    (0.30, 0.30): "differs: SZ larger",
}


@pytest.mark.parametrize("components", COMPONENTS)
def test_a_difference_is_of_scale_or_of_shape(components):
    scale, shape = components
    rows = [_row(p_family=0.02), _row("permutation_scale", scale), _row("permutation_shape", shape)]
    table = _summary(*rows)
    assert list(table.columns) == list(COLUMNS)
    assert table.verdict.tolist() == [COMPONENTS[components]]
    assert table[["effect", "p", "p_family"]].iloc[0].tolist() == [-0.25, 0.02, 0.02]
    assert table[["low", "high"]].isna().all(axis=None)


def test_the_components_are_those_of_the_same_layer_and_pair():
    other = _row("permutation_scale", 0.01, layer="hidden.0")
    assert _summary(_row(p_family=0.02), other).verdict.tolist() == ["differs: SZ larger"]


def test_a_group_is_called_larger_only_where_the_singular_values_agree():
    def indices(*excess, q=0.5):
        return [_row(per="index", excess_log2_ratio=value, q=q) for value in excess]

    assert _summary(_row(p_family=0.02), *indices(-1, -2, -1, 3)).verdict.tolist() == ["differs: SZ larger"]
    assert _summary(_row(p_family=0.02), *indices(-1, -2, 1, 3)).verdict.tolist() == ["differs: mixed signs"]
    marked = [*indices(-1, -2, -1, -1), *indices(3, q=0.01)]
    assert _summary(_row(p_family=0.02), *marked).verdict.tolist() == ["differs: mixed signs"]


INTERVALS = {(-0.4, -0.1): "SZ larger", (-0.4, 0.0): "direction open", (-0.4, 0.1): "direction open"}


@pytest.mark.parametrize("interval", INTERVALS)
def test_no_group_is_called_larger_where_the_interval_of_the_effect_has_0_in_it(interval):
    low, high = interval
    expected = f"differs: {INTERVALS[interval]}"
    assert _summary(_row(p_family=0.02, low=low, high=high)).verdict.tolist() == [expected]
    turned = as_drawn(pd.DataFrame([_row(p_family=0.02, low=low, high=high)]), [("SZ", "HC")])
    assert summarise(turned).verdict.tolist() == [expected]


def test_without_a_small_p_there_is_no_evidence():
    few = _row(p_family=0.4, panel="H", small_group=True)
    assert _summary(_row(p_family=0.05), few).verdict.tolist() == ["no evidence", "no evidence, few subjects"]


def test_what_is_not_tested_says_why_and_has_no_numbers():
    table = _summary(_row(note=REASON, excess_log2_ratio=np.nan))
    assert table.verdict.tolist() == [f"not tested: {REASON}"]
    assert table[["effect", "p", "p_family"]].isna().all(axis=None)


def test_pairs_that_nobody_asked_for_are_left_out_unless_there_is_nothing_else():
    rest = _row(a="a", b="b", note=NOT_ASKED)
    assert _summary(_row(p_family=0.4), rest).group_a.tolist() == ["HC"]
    assert _summary(rest).group_a.tolist() == ["a"]


def test_descriptive_and_finer_tests_take_no_part():
    finer = _row(per="epoch", p_family=0.001)
    paper = _row("paper", p_family=1e-9, per="index", kind="descriptive")
    assert len(_summary(_row(p_family=0.4), finer, paper)) == 1


def test_intervals_are_taken_where_there_are_any():
    table = _summary(_row(p_family=0.02, low=-0.4, high=-0.1))
    assert table[["low", "high"]].iloc[0].tolist() == [-0.4, -0.1]


def test_groups_are_named_for_readers():
    assert _summary(_row(p_family=0.02), label=lambda name: f"<{name}>").verdict.tolist() == ["differs: <SZ> larger"]


def test_the_table_has_the_signs_of_the_picture():
    """The file's order is HC, SZ; the figure draws SZ against HC."""
    rows = [_row(a="men", b="women", p_family=0.5), _row(p_family=0.02, low=-0.4, high=-0.1)]
    table = as_drawn(pd.DataFrame(rows), [("SZ", "HC")])
    first = table.iloc[0]
    assert (first.group_a, first.group_b, first.size_a, first.size_b) == ("SZ", "HC", 61, 63)
    assert (first.excess_log2_ratio, first.log2_ratio, first.low, first.high) == (0.25, 0.3, 0.1, 0.4)
    assert first.larger == "SZ"
    assert table.iloc[1].group_a == "men"
    assert summarise(table).verdict.tolist()[0] == "differs: SZ larger"


def test_a_filter_on_p_meets_no_descriptive_test():
    rows = [
        _row("paper", 1e-90, per="index", kind="descriptive"),
        _row("permutation", 0.2, per="epoch", kind="exploratory"),
        _row(p_family=0.4),
    ]
    table = apart(pd.DataFrame(rows))
    assert table.kind.tolist() == ["inferential", "exploratory", "descriptive"]
    assert table.p.tolist()[:2] == [0.4, 0.2]
    assert np.isnan(table.p.iloc[2])
    assert table.descriptive_p.iloc[2] == 1e-90
    assert table.descriptive_p[:2].isna().all()


def test_all_groups_at_once_and_a_covariate_have_verdicts_of_their_own():
    def joint(test, p, **values):
        return _row(test, p, b="", rank_correlation=np.nan, **values)

    rows = [
        joint("omnibus", 0.02, a="0, 1, 3", larger="3"),
        joint("omnibus", 0.2, a="0, 1, 3", larger="3", layer="hidden.0"),
        joint("covariate", 0.02, a="age", larger="") | {"rank_correlation": -0.3},
        joint("covariate", np.nan, a="motion", larger="", note="it was taken out"),
    ]
    table = _summary(*rows, label=lambda group: f"digit {group}")
    assert table.verdict.tolist() == [
        "groups differ: digit 3 largest",
        "no evidence",
        "goes with age: median rank correlation -0.30",
        "not tested: it was taken out",
    ]
    assert table.effect.iloc[[0, 2]].tolist() == [-0.25, -0.3]
