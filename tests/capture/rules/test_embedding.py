"""Embeddings, and uses of a weight that all samples of a batch share."""

import numpy as np
import pytest
import torch
from references import full_spectrum
from torch import nn

from autospec import AutoSpecError, AutoSpecWarning, SpectralRecorder

STATISTICS = ["gradient", "activation", "adjoint"]


def test_by_frequency_a_group_has_its_part_of_the_quotient_with_the_counts_of_the_whole_batch():
    model = nn.Sequential(nn.Embedding(6, 3, scale_grad_by_freq=True)).double()
    indices = torch.tensor([[1, 1, 0], [2, 1, 5], [1, 3, 3], [2, 2, 4]])
    with SpectralRecorder(model, groups=["a", "b"]) as recorder:
        with recorder.batch([0, 1, 0, 1]):
            output = model(indices)
            output.retain_grad()
            output.square().sum().backward()
        recorder.end_epoch()
    counts = torch.bincount(indices.flatten(), minlength=6).clamp_min(1)
    for row, members in enumerate([[0, 1, 2, 3], [0, 2], [1, 3]]):
        expected = torch.zeros(6, 3, dtype=torch.float64)
        for sample in members:
            for place, index in enumerate(indices[sample]):
                expected[index] += output.grad[sample, place] / counts[index]
        assert abs(recorder.table["layers/0/gradient"][0, row] - full_spectrum(expected)).max() < 1e-12


def test_bags_by_frequency_add_up_to_what_backward_leaves():
    model = nn.Sequential(nn.EmbeddingBag(6, 3, mode="sum", scale_grad_by_freq=True)).double()
    with SpectralRecorder(model, groups=["a", "b"]) as recorder:
        with recorder.batch([0, 1, 0, 1]):
            model(torch.tensor([[1, 1, 0], [2, 1, 5], [1, 3, 3], [2, 2, 4]])).square().sum().backward()
        recorder.end_epoch()
    expected = full_spectrum(model[0].weight.grad)
    assert abs(recorder.table["layers/0/gradient"][0, 0] - expected).max() < 1e-12 * expected[0]


class OneLookUp(nn.Module):
    """Adds one row of a table, looked up by a number, to every sample."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 3)

    def forward(self, x):
        return x + self.table(torch.tensor(2))


@pytest.mark.filterwarnings("ignore:.*samples share")
def test_one_look_up_by_a_number_is_shared_by_all_samples():
    model, x = OneLookUp().double(), torch.randn(4, 3, dtype=torch.float64)
    with SpectralRecorder(model, groups=["a", "b"]) as recorder:
        with recorder.batch([0, 1, 0, 1]):
            model(x).square().sum().backward()
        recorder.end_epoch()
    spectra = recorder.table["layers/table/gradient"][0]
    assert abs(spectra[0] - full_spectrum(model.table.weight.grad)).max() < 1e-12
    assert np.isnan(spectra[1:]).all()


def test_a_sparse_gradient_is_the_same_one():
    tables = []
    for sparse in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Embedding(6, 3, sparse=sparse))
        with SpectralRecorder(model, groups=["a", "b"], statistics=STATISTICS) as recorder:
            with recorder.batch([0, 1]):
                model(torch.tensor([[1, 1, 0], [2, 1, 5]])).square().sum().backward()
            recorder.end_epoch()
        tables.append(recorder.table)
    assert model[0].weight.grad.is_sparse
    for path in ("gradient", "activation", "adjoint"):
        assert np.array_equal(*(table[f"layers/0/{path}"] for table in tables))


def test_the_activation_spectrum_is_the_root_of_the_counts():
    model = nn.Sequential(nn.Embedding(6, 3, padding_idx=0))
    indices = torch.tensor([[1, 1, 0], [2, 1, 5]])
    with SpectralRecorder(model, groups=["a", "b"], statistics=STATISTICS) as recorder:
        with recorder.batch([0, 1]):
            model(indices).square().sum().backward()
        recorder.end_epoch()
    found = recorder.table["layers/0/activation"][0] ** 2
    assert np.allclose(found, [[3, 1, 1, 0, 0, 0], [2, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    assert recorder.table["layers/0/rows"][0].tolist() == [5, 2, 3]


def test_a_large_vocabulary_needs_no_one_hot_matrix():
    model = nn.Sequential(nn.Embedding(50_000, 2))
    with SpectralRecorder(model, groups=["a"], statistics=STATISTICS) as recorder:
        with recorder.batch([0, 0]):
            model(torch.randint(50_000, (2, 30))).square().sum().backward()
        recorder.end_epoch()
    assert recorder.table["layers/0/activation"].shape == (1, 2, 50_000)


class Positions(nn.Module):
    """Words with positions added, the positions looked up once for the whole batch."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(9, 4), nn.Embedding(5, 4)

    def forward(self, indices, apart=False):
        positions = torch.arange(indices.shape[1])[None]
        positions = positions.expand_as(indices) if apart else positions
        return self.words(indices) + self.positions(positions)


def recorded(model, *calls, labels=(0, 1, 1, -1)):
    indices = torch.randint(9, (len(labels), 5))
    with SpectralRecorder(model, groups=["a", "b"], statistics=STATISTICS, margins={"ab": ["a", "b"]}) as recorder:
        with recorder.batch(list(labels)):
            sum(model(indices, apart).square().sum() for apart in calls).backward()
        recorder.end_epoch()
    return recorder.table


@pytest.mark.parametrize("calls", [(False,), (False, True)], ids=["alone", "beside another use"])
def test_a_shared_use_is_stored_for_all_and_unknown_for_the_groups(calls):
    model = Positions().double()
    with pytest.warns(
        AutoSpecWarning, match="layer 'positions': called with rows that several of the 4 samples share"
    ) as caught:
        table = recorded(model, *calls)
    assert len(caught) == 1
    gradient = table["layers/positions/gradient"][0]
    assert abs(gradient[0] - full_spectrum(model.positions.weight.grad)).max() < 1e-12
    assert np.isnan(gradient[1:]).all()
    for path in ("activation", "adjoint", "floor/gradient", "floor/activation"):
        values = table[f"layers/positions/{path}"][0]
        assert np.isfinite(values[0]).all()
        assert np.isnan(values[1:]).all()
    cosine = table["layers/positions/cosine"][0]
    assert cosine[0, 0] == pytest.approx(1)
    assert np.isnan(cosine).sum() == cosine.size - 1
    assert np.isnan(table["layers/positions/cancellation"][0])
    assert np.isfinite(table["layers/words/gradient"][0]).all()


def test_a_batch_of_one_shares_nothing():
    table = recorded(Positions().double(), False, labels=(1,))
    assert np.isfinite(table["layers/positions/gradient"][0]).all()


def test_a_first_dimension_that_is_neither_sample_nor_shared():
    model = Positions()
    recorder = SpectralRecorder(model, groups=["a"])
    message = "layer 'positions' saw a batch of 5 samples, but 4 group labels were given"
    with pytest.raises(AutoSpecError, match=message), recorder.batch([0] * 4):
        (model(torch.zeros(4, 5, dtype=torch.int64)) + model.positions(torch.arange(5))).sum().backward()


class Tied(nn.Module):
    """A table that words go in by and come out by."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.words.weight

    def forward(self, indices):
        return self.head(self.words(indices).tanh())


def test_a_table_tied_to_the_head_is_one_gradient_of_two_uses():
    model = Tied().double()
    indices = torch.randint(9, (4, 5))
    with SpectralRecorder(model, groups=["a", "b"], statistics=STATISTICS) as recorder:
        with recorder.batch([0, 1, 1, 0]):
            model(indices).square().sum().backward()
        recorder.end_epoch()
    gradient = recorder.table["layers/words/gradient"][0]
    assert abs(gradient[0] - full_spectrum(model.words.weight.grad)).max() < 1e-12 * gradient[0, 0]
    counts = torch.bincount(indices.flatten(), minlength=9).sort(descending=True).values
    assert np.allclose(recorder.table["layers/words/activation"][0, 0] ** 2, counts)
    hidden = full_spectrum(model.words(indices).tanh().detach().flatten(0, 1))
    assert np.allclose(recorder.table["layers/words/uses/head/activation"][0, 0], hidden)
