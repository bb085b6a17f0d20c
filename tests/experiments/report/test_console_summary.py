"""What `make figures` says at its end."""

import pandas as pd

from autospec.analysis.figure_summary import COLUMNS
from autospec.experiments.report.console_summary import summary_text


def _written(tmp_path, rows):
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(tmp_path / "summary.csv", index=False)
    return summary_text(4, tmp_path / "summary.csv")


def test_a_row_for_what_was_tested_and_a_sentence_for_the_rest(tmp_path):
    rows = [
        ("G", "hidden.0", "SZ", "HC", 0.25, None, None, 0.01, 0.02, "differs: SZ larger, scale rather than shape"),
        ("G", "head", "SZ", "HC", -0.1, None, None, 0.3, 0.4, "no evidence"),
        ("H", "hidden.0", "SZ", "HC", None, None, None, None, None, "not tested: it is learned"),
        ("H", "head", "SZ", "HC", None, None, None, None, None, "not tested: it is learned"),
    ]
    assert _written(tmp_path, rows).splitlines()[1:] == [
        "panel  layer     groups   effect  p      p_family  verdict",
        "G      hidden.0  SZ / HC  +0.25   0.010  0.020     differs: SZ larger, scale rather than shape",
        "G      head      SZ / HC  -0.10   0.300  0.400     no evidence",
        "H: SZ / HC not tested: it is learned",
    ]


def test_intervals_are_shown_where_there_are_any_and_digits_stay_names(tmp_path):
    text = _written(tmp_path, [("G", "head", "0", "3", 0.25, 0.1, 0.4, 0.01, 0.02, "differs: digit 0 larger")])
    assert "95 %" in text
    assert "0 / 3   +0.25   +0.10 to +0.40" in text


def test_where_nothing_is_tested_there_is_no_table(tmp_path):
    text = _written(tmp_path, [("G", "head", "0", "3", None, None, None, None, None, "not tested: no permutations")])
    assert text.splitlines()[1:] == ["G: 0 / 3 not tested: no permutations"]


def test_all_groups_at_once_and_a_covariate_have_no_second_group(tmp_path):
    rows = [
        ("G", "head", "0", "3", 0.25, 0.1, 0.4, 0.01, 0.02, "differs: 0 larger"),
        ("G", "head", "0, 1, 3", "", 0.5, None, None, 0.01, 0.02, "groups differ: 3 largest"),
        ("G", "head", "age", "", 0.2, None, None, 0.3, 0.4, "no evidence"),
        ("H", "head", "0, 1, 3", "", None, None, None, None, None, "not tested: it is learned"),
    ]
    lines = [line.split("  ") for line in _written(tmp_path, rows).splitlines()[2:]]
    found = [[word.strip() for word in line if word.strip()] for line in lines]
    assert found[1] == ["G", "head", "0, 1, 3", "+0.50", "0.010", "0.020", "groups differ: 3 largest"]
    assert found[2] == ["G", "head", "age", "+0.20", "0.300", "0.400", "no evidence"]
    assert found[3] == ["H: 0, 1, 3 not tested: it is learned"]
