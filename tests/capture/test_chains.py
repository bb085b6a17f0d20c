"""Linear chains: the rank that a bottleneck leaves, against gradients whose rank is counted in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autospec import SpectralRecorder
from autospec.capture.chains import chain_bounds


def linear_chain(widths, biases):
    layers = [nn.Linear(a, b, bias=bias) for a, b, bias in zip(widths, widths[1:], biases, strict=False)]
    return nn.Sequential(*layers).double()


def bounds_by_name(model):
    names = {id(parameter): name.removesuffix(".weight") for name, parameter in model.named_parameters()}
    return {names[key]: bound for key, bound in chain_bounds(model).items()}


def ranks_of_gradients(model, samples=40):
    """The rank of each weight's gradient, from a full decomposition, for samples and targets in general position."""
    output = model(torch.randn(samples, _inputs(model)).double())
    (output - torch.randn_like(output)).square().sum().backward()
    return {
        name.removesuffix(".weight"): int(torch.linalg.matrix_rank(parameter.grad, rtol=1e-9))
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2
    }


def _inputs(model):
    return next(module.in_features for module in model.modules() if isinstance(module, nn.Linear))


@given(
    widths=st.lists(st.integers(1, 7), min_size=2, max_size=6),
    biases=st.lists(st.booleans(), min_size=5, max_size=5),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_bound_is_the_rank_of_a_gradient_in_general_position(widths, biases, seed):
    torch.manual_seed(seed)
    model = linear_chain(widths, biases)
    bounds = bounds_by_name(model)
    for name, rank in ranks_of_gradients(model).items():
        assert rank == bounds.get(name, min(model.get_submodule(name).weight.shape))


@pytest.mark.parametrize("bias", [True, False])
def test_a_deep_linear_autoencoder(bias):
    model = linear_chain([10, 6, 2, 6, 10], [bias] * 4)
    assert bounds_by_name(model) == {"0": 2, "3": 3 if bias else 2}
    assert ranks_of_gradients(model) == {"0": 2, "1": 2, "2": 2, "3": 3 if bias else 2}


def test_sequentials_inside_and_identities_are_part_of_a_chain():
    encoder = nn.Sequential(nn.Linear(10, 6), nn.Identity(), nn.Linear(6, 2))
    model = nn.ModuleDict({"net": nn.Sequential(encoder, nn.Sequential(nn.Linear(2, 10)))})
    assert bounds_by_name(model) == {"net.0.0": 2}


class OneByOne(nn.Module):
    """Runs what its Sequential holds itself, with a nonlinearity in between."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 2), nn.Linear(2, 8))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def _shared():
    """One layer runs twice."""
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Linear(8, 6), layer, nn.Linear(6, 2), nn.Linear(2, 6), layer, nn.Linear(6, 8))


def _tied():
    """First and last layer have one weight, whose gradient is of both."""
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2), nn.Linear(2, 6), nn.Linear(6, 6))
    model[3].weight = model[0].weight
    return model


def _with(between):
    return nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4), between, nn.Linear(4, 2), nn.Linear(2, 8))


@pytest.mark.parametrize(
    ("model", "bounds"),
    [
        (nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8)), {}),
        (nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 8)), {}),
        (_with(nn.ReLU()), {"0": 4}),
        (_with(nn.Dropout(0.5)), {"0": 4}),
        (_with(nn.LayerNorm(4)), {"0": 4}),
        (nn.ModuleList([nn.Linear(8, 6), nn.Linear(6, 2), nn.Linear(2, 8)]), {}),
        (_shared(), {}),
        (_tied(), {}),
    ],
)
def test_what_breaks_a_chain(model, bounds):
    assert bounds_by_name(model) == bounds


def recorded(model, batches=1, statistics=("gradient", "rank")):
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=statistics)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(batches):
        with recorder.batch([0, 1] * 20):
            inputs = torch.randn(40, _inputs(model)).double()
            (model(inputs) - torch.randn(40, 8).double()).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    recorder.end_epoch()
    return recorder


def test_it_is_stored_beside_the_ranks_and_never_narrows_what_always_holds():
    model = linear_chain([8, 6, 2, 8], [True] * 3)
    recorder = recorded(model)
    values = recorder.spectra["0"]
    assert values["rank_chain"].dims == ("epoch",)
    assert values["rank_chain"].values.tolist() == [2]
    assert values["rank_numerical"].values.tolist() == [[2, 2, 2]]
    assert "rank_chain" not in recorder.spectra["1"]  # its own sides are as sharp
    assert set(recorder.spectra.to_frame().query("layer == '0'").rank_bound) == set(
        recorder.table["layers/0/rank/bound"].flatten()
    )
    assert "layers/0/rank/chain" not in recorded(model, statistics=("gradient",)).table


def test_over_several_steps_each_adds_directions_of_its_own():
    table = recorded(linear_chain([8, 6, 2, 8], [True] * 3), batches=2).table
    assert table["layers/0/rank/chain"].tolist() == [4]
    assert table["layers/0/rank/numerical"].tolist() == [[4, 4, 4]]


def test_layers_that_are_not_called_one_after_the_other_have_no_bound():
    model = OneByOne().double()
    assert bounds_by_name(model) == {"layers.0": 2}
    table = recorded(model).table
    assert np.isnan(table["layers/layers.0/rank/chain"]).all()
    assert (table["layers/layers.0/rank/numerical"] > 2).all()
