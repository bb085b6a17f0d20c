import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from autospec.analysis.comparison import compare
from autospec.analysis.paper_tests import COLUMNS, paper_tests, student
from autospec.store.groups import pairs_of


def _frame(values, weight=(1.0, 0.5, 0.5), floor=0.0, rank=99):
    """The tidy table of spectra (epoch, group, index) of groups all, a, b in one layer."""
    epochs, groups, indices = values.shape
    rows = [
        (
            "net",
            epoch,
            group,
            index + 1,
            values[epoch, g, index],
            values[epoch, g, index] / weight[g],
            floor,
            floor / weight[g],
            rank,
        )
        for epoch in range(epochs)
        for g, group in enumerate(("all", "a", "b")[:groups])
        for index in range(indices)
    ]
    columns = ["layer", "epoch", "group", "index", "value", "scaled", "floor", "scaled_floor", "rank_bound"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def values():
    return np.random.default_rng(0).lognormal(size=(7, 3, 5))


def _row(table, test, per, at):
    found = table[(table.test == test) & (table.per == per) & (table["at"] == at)]
    assert len(found) == 1
    return found.iloc[0]


def test_every_test_is_scipys(values):
    table = paper_tests(compare(_frame(values, weight=(1, 0.25, 0.75)), [("a", "b")]))
    raw, scaled = values, values / np.array([1, 0.25, 0.75])[None, :, None]
    for test, used in (("paper", raw), ("paper_scaled", scaled)):
        for epoch in range(7):
            # scipy.stats.ttest_ind(a, b): Student, unpaired, two-sided
            expected = ttest_ind(used[epoch, 1], used[epoch, 2])
            row = _row(table, test, "epoch", epoch)
            assert (row.t, row.p, row.df) == pytest.approx((expected.statistic, expected.pvalue, expected.df))
        for index in range(5):
            expected = ttest_ind(used[:, 1, index], used[:, 2, index])
            row = _row(table, test, "index", index + 1)
            assert (row.t, row.p, row.n) == pytest.approx((expected.statistic, expected.pvalue, 7))
            assert row.mean_a == pytest.approx(used[:, 1, index].mean())


def test_the_table_has_one_row_per_test_and_place_and_documents_its_columns(values):
    table = paper_tests(compare(_frame(values), [("a", "b")]))
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 2 * (7 + 5)
    assert set(table.kind) == {"descriptive"}


def test_values_under_the_floor_are_left_out_and_counted(values):
    floor = float(np.quantile(values, 0.4))
    table = paper_tests(compare(_frame(values, floor=floor), [("a", "b")]))
    kept = (values[:, 1] > floor) & (values[:, 2] > floor)
    for epoch in range(7):
        row = _row(table, "paper", "epoch", epoch)
        assert row.below_floor == (~kept[epoch]).sum()
        assert row.n == kept[epoch].sum()
        if row.n >= 2:
            expected = ttest_ind(values[epoch, 1, kept[epoch]], values[epoch, 2, kept[epoch]])
            assert (row.t, row.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_values_beyond_the_rank_bound_are_left_out_and_counted(values):
    table = paper_tests(compare(_frame(values, rank=3), [("a", "b")]))
    assert set(table[table.per == "epoch"].beyond_rank) == {2}
    last = _row(table, "paper", "index", 5)
    assert (last.n, last.beyond_rank, last.below_floor) == (0, 7, 0)
    assert np.isnan(last.p)
    assert last.note == "fewer than two values above both noise floors"


def test_constant_and_missing_spectra_have_a_reason_and_no_warning(values):
    values[:] = 2.0
    table = paper_tests(compare(_frame(values), [("a", "b")]))
    assert table.p.isna().all()
    assert set(table.note) == {"the values do not vary"}
    values[:] = np.nan
    table = paper_tests(compare(_frame(values), [("a", "b")]))
    assert set(table.n) == {0}
    assert table.median_log2_ratio.isna().all()


def test_the_log_ratio_is_of_scaled_values_and_positive_where_the_first_is_larger(values):
    values[:, 1], values[:, 2] = 1.0, 2.0
    (comparison,) = compare(_frame(values, weight=(1, 0.25, 1.0)), [("a", "b")])
    assert comparison.log_ratio() == pytest.approx(1.0)
    table = paper_tests(compare(_frame(values, weight=(1, 0.25, 1.0)), [("a", "b")]))
    assert set(table.median_log2_ratio.round(9)) == {1.0}


def test_student_needs_two_values():
    t, df, p = student(np.array([[1.0]]), np.array([[2.0]]), np.array([[True]]), axis=1)
    assert np.isnan(t[0])
    assert np.isnan(p[0])
    assert df[0] == 0


def test_no_value_has_no_degrees_of_freedom():
    nothing = np.array([[False, False]])
    assert np.isnan(student(np.ones((1, 2)), np.ones((1, 2)), nothing, axis=1)).all()


def test_pairs_share_nobody():
    members = {
        "all": frozenset("abcd"), "a": frozenset("a"), "b": frozenset("b"), "c": frozenset("c"), "d": frozenset("d"),
        "ab": frozenset("ab"), "cd": frozenset("cd"), "ac": frozenset("ac"),
    }  # fmt: skip
    pairs = pairs_of(list(members), members)
    assert ("a", "b") in pairs
    assert ("ab", "cd") in pairs
    assert ("ab", "ac") not in pairs
    assert len(pairs) == 6 + 1


def test_no_pairs_give_an_empty_table(values):
    assert len(paper_tests(compare(_frame(values), []))) == 0
