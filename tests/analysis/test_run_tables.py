"""Comparisons that are made once, and turned round where a pair is."""

import numpy as np
import pytest
from small_runs import record

from autospec.analysis import run_tables
from autospec.analysis.comparison import compare
from autospec.analysis.run_tables import RunTables


@pytest.fixture
def run():
    return RunTables(record(groups=("SZ", "HC", "x"), margins={"patients": ["SZ", "x"]}).spectra)


def test_pairs_share_no_subject(run):
    assert run.groups == ("SZ", "HC", "x")
    assert run.pairs == [("SZ", "HC"), ("SZ", "x"), ("HC", "x")]


def test_a_pair_and_the_same_turned_round(run):
    (same, *_), (turned, *_) = run.comparisons_of([("SZ", "HC")]), run.comparisons_of([("HC", "SZ")])
    assert (turned.a, turned.b) == ("HC", "SZ")
    np.testing.assert_array_equal(turned.log_ratio(), -same.log_ratio())
    expected = next(compare(run.frame, [("HC", "SZ")]))
    for name in ("raw", "scaled", "beyond_rank", "below_floor"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(expected, name))


def test_a_pair_that_is_not_tested_is_compared_when_it_is_asked_for(run):
    compared = run.comparisons_of([("patients", "HC"), ("SZ", "HC")])
    assert [(one.a, one.b, one.layer) for one in compared] == [
        ("patients", "HC", "0"),
        ("patients", "HC", "2"),
        ("SZ", "HC", "0"),
        ("SZ", "HC", "2"),
    ]


def test_comparisons_are_made_once(run, monkeypatch):
    made = []
    monkeypatch.setattr(run_tables, "compare", lambda frame, pairs: made.append(pairs) or compare(frame, pairs))
    for _ in range(3):
        run.comparisons_of([("SZ", "x"), ("HC", "SZ")])
    assert made == [run.pairs]
