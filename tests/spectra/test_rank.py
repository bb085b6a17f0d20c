import pytest
import torch
from torch import nn

from autospec import SpectralRecorder
from autospec.spectra.rank import effective_rank, numerical_rank


def test_ranks_of_prescribed_spectra():
    spectra = torch.tensor([[2.0, 2.0, 2.0, 1e-12], [5.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    floor = torch.tensor([1e-9, 1e-9])
    assert numerical_rank(spectra, floor).tolist() == [3.0, 1.0]
    assert effective_rank(spectra, floor).tolist() == pytest.approx([3.0, 1.0])
    assert effective_rank(torch.zeros(1, 2, dtype=torch.float64), floor[:1]).isnan().all()
    assert numerical_rank(torch.full((1, 2), torch.nan, dtype=torch.float64), floor[:1]).isnan().all()


def test_no_gradient_exceeds_its_bound():
    """Inputs of rank 2, one group of one sample, a bottleneck in the middle."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 10)).double()
    inputs = torch.randn(20, 2, dtype=torch.float64) @ torch.randn(2, 10, dtype=torch.float64)
    labels = torch.tensor([0] * 19 + [1])
    recorder = SpectralRecorder(model, groups=["many", "one"], statistics=("gradient", "activation", "adjoint", "rank"))
    with recorder.batch(labels):
        (model(inputs) - inputs).square().mean().backward()
    recorder.end_epoch()
    bound, measured, effective = (
        recorder.table[f"layers/0/rank/{name}"][0] for name in ("bound", "numerical", "effective")
    )
    assert bound.tolist() == [2, 2, 1]
    assert (measured <= bound).all()
    assert (effective <= measured + 1e-9).all()
    assert recorder.table["layers/2/rank/bound"][0].tolist()[2] == 1


def test_only_the_leading_singular_values_are_stored_and_they_are_exact():
    model, inputs = nn.Linear(9, 7).double(), torch.randn(30, 9, dtype=torch.float64)
    tables = []
    for leading in (None, 2):
        recorder = SpectralRecorder(model, groups=["a"], statistics=["gradient", "activation"], leading=leading)
        with recorder.batch([0] * 30):
            model(inputs).square().sum().backward()
        recorder.end_epoch()
        tables.append(recorder.table)
    for statistic in ("gradient", "activation"):
        everything, first = (table[f"layers/weight/{statistic}"] for table in tables)
        assert first.shape == (1, 2, 2)
        assert (first == everything[..., :2]).all()
