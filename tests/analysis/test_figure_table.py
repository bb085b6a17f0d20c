"""The whole way from a backward pass to the table, for groups that nothing can be said of; warnings are errors."""

import numpy as np
import pytest
import torch
from torch import nn

from autospec import SpectralRecorder
from autospec.analysis.figure_table import COLUMNS, panel_table, write_table
from autospec.analysis.run_tables import RunTables
from autospec.store.permuted_pairs import PairPermutations, PermutationDesign

SUBJECTS = 8


def _table(inputs, labels, scale=1.0, refused=""):
    """Every test of groups a and b, of two epochs without an optimizer step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4)).double()
    random = np.random.default_rng(0)
    observed = np.array(labels, dtype=np.int8) + 1
    members = np.stack([observed, *(random.permutation(observed) for _ in range(30))])
    pairs = () if refused else (PairPermutations("a", "b", (), members),)
    plan = PermutationDesign(
        pairs, {("a", "b"): refused} if refused else {}, np.arange(SUBJECTS), (0, 1) if pairs else ()
    )
    sizes = [SUBJECTS, labels.count(0), labels.count(1)]
    recorder = SpectralRecorder(model, groups=["a", "b"], permutation_design=plan, group_sizes=sizes)
    for _ in range(2):
        with recorder.batch(labels) as batch:
            losses = (model(inputs) - inputs).square().mean(1) * scale
            losses.mean().backward()
            batch.losses(losses)
        model.zero_grad()
        recorder.end_epoch()
    return panel_table([RunTables(recorder.spectra)], 1, "G", min_group=3)


def _inputs():
    return torch.randn(SUBJECTS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _primary(table):
    return table[(table.test == "permutation") & (table.per == "trajectory")]


UNDEFINED = {
    "everybody is alike": (_inputs()[:1].expand(SUBJECTS, 4), 1.0, "the values do not vary over partitions"),
    "every gradient is zero": (_inputs(), 0.0, "no value of either group lies above its noise floor"),
}


@pytest.mark.parametrize("case", UNDEFINED)
def test_what_cannot_be_tested_is_nan_with_a_reason(case):
    inputs, scale, note = UNDEFINED[case]
    table = _table(inputs, [0, 0, 0, 0, 1, 1, 1, 1], scale)
    primary = _primary(table)
    assert primary.p.isna().all()
    assert primary.p_family.isna().all()
    assert set(primary.note) == {note}
    assert (table.p.isna() == (table.note != "")).all()


def test_twins_on_either_side_do_not_differ():
    inputs = _inputs()[:4].repeat(2, 1)
    table = _table(inputs, [0, 0, 0, 0, 1, 1, 1, 1])
    primary = _primary(table)
    assert (primary.p > 0.5).all()
    assert primary.log2_ratio.abs().max() < 1e-6
    assert (table.p.isna() == (table.note != "")).all()


@pytest.mark.parametrize("first", [1, 2])
def test_groups_of_one_or_two_people_are_descriptive_at_most(first):
    labels = [0] * first + [1] * (SUBJECTS - first)
    table = _table(_inputs(), labels, refused=f"a group of {first} people; 3 are needed")
    assert set(_primary(table).note) == {f"a group of {first} people; 3 are needed"}
    assert _primary(table).p.isna().all()
    assert table.small_group.all()
    paper = table[(table.kind == "descriptive") & (table.per == "epoch")]
    assert set(paper.n) == {first}  # beyond the rank of so few rows nothing is compared
    assert (paper.p.isna() == (paper.note != "")).all()
    assert paper.p.isna().all() == (first == 1)


def test_a_table_is_written_with_what_its_columns_mean(tmp_path):
    table = _table(_inputs(), [0, 0, 0, 0, 1, 1, 1, 1])
    write_table(table, tmp_path / "tests.csv")
    assert list(table.columns) == list(COLUMNS)
    assert all(name in (tmp_path / "tests.json").read_text() for name in COLUMNS)
