"""Records that wait for one another have the numbers of records that are computed one by one."""

import numpy as np
import pytest
import torch
from torch import nn

import autospec
from autospec.errors import AutoSpecWarning
from autospec.recording import pending_records
from autospec.spectra.gradient import GradientSum
from autospec.spectra.groups import checked_grouping
from autospec.spectra.settled import settle_spectra
from autospec.spectra.singular import is_zero


def _trained(engine, monkeypatch, most_records, epochs=7, statistics=("gradient",)):
    monkeypatch.setattr(pending_records, "MOST_RECORDS", most_records)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, labels = torch.randn(30, 6), torch.arange(30) % 3
    labels[::7] = -1
    recorder = autospec.SpectralRecorder(
        model, groups=["a", "b", "c"], margins={"ab": ["a", "b"]}, engine=engine, statistics=statistics, floor="formula"
    )
    for _ in range(epochs):
        for half in (slice(0, 18), slice(18, 30)):
            with recorder.batch(labels[half]):
                (model(inputs[half]) - inputs[half]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        recorder.end_epoch()
    return recorder


@pytest.mark.parametrize("engine", ["hooks", "per_group", "fused"])
def test_records_that_wait_have_the_numbers_of_those_computed_one_by_one(engine, monkeypatch):
    waited, alone = (_trained(engine, monkeypatch, most) for most in (4, 1))
    assert len(waited._records.pending) == 2 and not len(alone._records.pending)
    assert waited.table.epochs == alone.table.epochs == list(range(7))
    for array in alone.table:
        np.testing.assert_array_equal(waited.table[array.field.path], array.values)
    assert not len(waited._records.pending)


def test_a_read_in_between_changes_nothing(monkeypatch):
    recorder = _trained("hooks", monkeypatch, 64, epochs=3)
    first = recorder.spectra["0"].gradient.values.copy()
    recorder.close()
    np.testing.assert_array_equal(recorder.table["layers/0/gradient"], first)


def test_rewinding_forgets_records_that_wait(monkeypatch):
    recorder = _trained("per_group", monkeypatch, 64, epochs=5)
    recorder.rewind(2)
    assert recorder.table.epochs == [0, 1]


def test_a_gradient_that_is_not_finite_is_said_at_its_own_record():
    model = nn.Linear(3, 3)
    recorder = autospec.SpectralRecorder(model, groups=["a"], engine="per_group")
    with recorder.batch(torch.zeros(9, dtype=torch.int64)):
        (model(torch.full((9, 3), 1e30)).square().sum() * 1e20).backward()
    with pytest.warns(AutoSpecWarning, match="layer 'weight': NaN or infinity in its gradient at epoch 0"):
        recorder.end_epoch()


def test_labels_are_looked_at_anew_where_they_change_in_place():
    model, labels = nn.Linear(3, 3), torch.tensor([0] * 6 + [1] * 6)
    recorder = autospec.SpectralRecorder(model, groups=["a", "b"], engine="per_group")
    for _ in range(3):
        with recorder.batch(labels):
            model(torch.ones(12, 3)).square().mean().backward()
        recorder.end_epoch()
        labels[:3] = 1
    assert recorder.table["groups/rows"].tolist() == [[12, 6, 6], [12, 3, 9], [12, 3, 9]]
    with recorder.batch(labels.to(torch.int32)):
        model(torch.ones(12, 3)).square().mean().backward()
    with pytest.raises(autospec.AutoSpecError, match="group label 2 is outside the 2 groups"):
        labels[0] = 2
        recorder.batch(labels).__enter__()


@pytest.mark.parametrize(("value", "zero"), [(0.0, True), (1e-40, False), (float("nan"), False), (1.0, False)])
def test_a_gradient_is_zero_where_every_entry_is(value, zero):
    tensor = torch.zeros(3, 4)
    tensor[1, 2] = value
    assert is_zero(tensor) is zero


def test_weights_of_several_shapes_are_settled_each_with_its_own_spectra():
    grouping = checked_grouping(["a", "b"], {"ab": ["a", "b"]})
    matrices = [torch.randn(3, *shape) for shape in ((4, 5), (5, 4), (4, 5), (2, 9), (4, 5))]
    matrices[2][2] = 0  # no sample in no group
    matrices[4][1] = torch.nan
    sums = [GradientSum(tuple(one.shape[1:]), grouping) for one in matrices]
    for one, given in zip(sums, matrices, strict=True):
        one.add_matrices(given)
    settle_spectra(sums)
    for one, given in zip(sums[:4], matrices, strict=False):
        cells = given.double()
        expected = torch.stack([cells.sum(0), cells[0], cells[1], cells[:2].sum(0)])
        assert one.unsettled is None
        assert torch.allclose(one.spectra(), torch.linalg.svdvals(expected), rtol=0, atol=1e-7)
        flat = nn.functional.normalize(expected.flatten(1))
        assert torch.allclose(one.cosines(), flat @ flat.mT, rtol=0, atol=1e-12)
        assert float(one.cancellation()) == pytest.approx(
            float(cells.sum(0).norm() / cells.flatten(1).norm(dim=1).sum())
        )
    assert sums[4].unsettled is not None
    assert sums[4].spectra()[[0, 2, 3]].isnan().any(1).tolist() == [True, True, True]
    assert sums[4].spectra()[1].isfinite().all()
