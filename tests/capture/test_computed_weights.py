"""Weights that a layer computes from parameters at every call: the gradient of what it multiplies by."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from references import full_spectrum, group_sums, weight_gradients
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from autospec import AutoSpecError, SpectralRecorder

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
LABELS = [0, 1, 1, 0, 0]


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).T


def symmetric(layer):
    return parametrize.register_parametrization(layer, "weight", Symmetric())


def pruned_twice(layer):
    nn.utils.prune.l1_unstructured(layer, "weight", 0.3)
    return nn.utils.prune.random_unstructured(layer, "weight", 0.3)


def linear():
    return nn.Linear(5, 5)


WAYS = {
    "weight_norm": (parametrizations.weight_norm, linear),
    "weight_norm of a convolution": (parametrizations.weight_norm, lambda: nn.Conv1d(5, 4, 1)),
    "old weight_norm": (nn.utils.weight_norm, linear),
    "spectral_norm": (parametrizations.spectral_norm, linear),
    "old spectral_norm": (nn.utils.spectral_norm, linear),
    "spectral_norm of an embedding": (parametrizations.spectral_norm, lambda: nn.Embedding(7, 5)),
    "orthogonal": (parametrizations.orthogonal, linear),
    "cayley": (lambda layer: parametrizations.orthogonal(layer, orthogonal_map="cayley"), linear),
    "matrix_exp": (lambda layer: parametrizations.orthogonal(layer, orthogonal_map="matrix_exp"), linear),
    "pruned": (lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.3), linear),
    "pruned twice": (pruned_twice, linear),
    "symmetric": (symmetric, linear),
}


def made(way, dtype=torch.float64):
    wrap, layer = WAYS[way]
    torch.manual_seed(3)
    model = nn.Sequential(wrap(layer().to(dtype)), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3, dtype=dtype))
    torch.manual_seed(4)
    x = torch.randint(7, (5, 2)) if isinstance(model[0], nn.Embedding) else torch.randn(5, 5, dtype=dtype)
    x = x[..., None] if isinstance(model[0], nn.Conv1d) else x
    with torch.no_grad():
        model.eval()(x)
    return model, x


def losses(model, x):
    return model(x).sin().sum(1)


def gradients_alone(model, x):
    """(n, out, in): what each sample alone adds to the gradient of the computed weight; the model is in evaluation."""
    found = []
    for sample in range(len(x)):
        with parametrize.cached():
            (losses(model, x[sample : sample + 1])[0] / len(x)).backward(inputs=[weight := model[0].weight])
        found.append(weight.grad.flatten(1))
    return torch.stack(found)


@pytest.mark.parametrize("way", WAYS)
def test_the_gradient_is_that_of_the_computed_weight(way):
    model, x = made(way)
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=["gradient", "activation", "adjoint"])
    assert recorder.layers == ["0", "3"]
    with recorder.batch(LABELS):
        losses(model, x).mean().backward()
    recorder.end_epoch()
    assert recorder._header.layers["0"]["weight"].startswith("computed from parameters")
    expected = group_sums(gradients_alone(made(way)[0], x), LABELS, 2)
    for values, matrix in zip(recorder.table["layers/0/gradient"][0], expected, strict=True):
        assert abs(values - full_spectrum(matrix)).max() < 1e-12
    assert np.isfinite(recorder.table["layers/0/activation"]).all()


class Twice(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(self.layer(x).tanh())


@pytest.mark.parametrize("way", ["weight_norm", "old weight_norm", "orthogonal", "symmetric"])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_layer_that_is_called_twice_has_the_sum_of_both_calls(way, passes):
    model, x = made(way)
    model[0] = Twice(model[0])
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        for _ in range(passes):
            (losses(model, x).mean() / passes).backward()
    recorder.end_epoch()
    alone = made(way)[0]
    weight = alone[0].weight.detach().requires_grad_()
    per_sample = []
    for sample in x:
        first = torch.nn.functional.linear(sample, weight, alone[0].bias).tanh()
        output = alone[1:](torch.nn.functional.linear(first, weight, alone[0].bias)[None])
        per_sample += torch.autograd.grad(output.sin().sum() / len(x), weight)
    for values, matrix in zip(
        recorder.table["layers/0.layer/gradient"][0], group_sums(torch.stack(per_sample), LABELS, 2), strict=True
    ):
        assert abs(values - full_spectrum(matrix)).max() < 1e-12


def test_a_computed_weights_gradient_that_is_zeroed_between_two_passes_is_still_found():
    model, x = made("weight_norm")
    model[0] = Twice(model[0])
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with pytest.raises(AutoSpecError, match=r"layer '0.layer': its gradient was zeroed"), recorder.batch(LABELS):
        losses(model, x).mean().backward()
        model[0].zero_grad()
        losses(model, x).mean().backward()


@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same_to_the_last_bit(way):
    def trained(record):
        model, x = made(way, torch.float32)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        recorder = SpectralRecorder(model, groups=["a", "b"]) if record else None
        for _ in range(3):
            if recorder:
                with recorder.batch(LABELS):
                    losses(model, x).mean().backward()
            else:
                losses(model, x).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [torch.get_rng_state(), *model.parameters(), *model.buffers()]

    assert all(torch.equal(with_it, without) for with_it, without in zip(trained(True), trained(False), strict=True))


@pytest.mark.parametrize("way", ["weight_norm", "symmetric", "cayley"])
def test_the_trained_parameters_own_gradients_where_they_are_asked_for(way):
    model, x = made(way)
    alone = weight_gradients(model, {"x": x}, lambda net, batch: losses(net, batch["x"]))
    recorder = SpectralRecorder(model, groups=["a", "b"], layers=["0.parametrizations.*", "0", "3"])
    assert recorder.layers[0] == "0"
    assert len(recorder.layers) >= 3
    with recorder.batch(LABELS):
        losses(model, x).mean().backward()
    recorder.end_epoch()
    for layer in recorder.layers[1:-1]:
        expected = group_sums(alone[layer], LABELS, 2)
        for values, matrix in zip(recorder.table[f"layers/{layer}/gradient"][0], expected, strict=True):
            assert abs(values - full_spectrum(matrix)).max() < 1e-12


@pytest.mark.parametrize("engine", ["aliased"])
def test_with_passes_per_group_it_is_the_trained_parameters(engine):
    model, _ = made("weight_norm")
    layers = SpectralRecorder(model, groups=["a"], engine=engine).layers
    assert layers == ["0.parametrizations.weight.original0", "0.parametrizations.weight.original1", "3"]


def fused(kind):
    if kind == "LSTM":
        layer, name = nn.LSTM(4, 4, batch_first=True), "weight_hh_l0"
        wrapped = nn.utils.weight_norm(layer.double(), name)
    else:
        layer, name = nn.MultiheadAttention(4, 2, batch_first=True), "in_proj_weight"
        wrapped = parametrizations.weight_norm(layer.double(), name)
    return nn.ModuleDict({"layer": wrapped}), name


@pytest.mark.parametrize("kind", ["LSTM", "attention"])
def test_a_part_of_a_fused_layer_that_is_computed(kind):
    torch.manual_seed(0)
    model, name = fused(kind)
    x = torch.randn(5, 3, 4, dtype=torch.float64)

    def run(x):
        return model["layer"](x)[0] if kind == "LSTM" else model["layer"](x, x, x)[0]

    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        run(x).square().sum().backward()
    recorder.end_epoch()
    assert len(recorder.layers) == 2
    for row, members in enumerate([[0, 1, 2, 3, 4], [0, 3, 4], [1, 2]]):
        with parametrize.cached():
            output = run(x[members]).square().sum()
            weight = getattr(model["layer"], name)
            (gradient,) = torch.autograd.grad(output, weight)
        values = recorder.table[f"layers/layer.{name}/gradient"][0, row]
        assert abs(values - full_spectrum(gradient)).max() < 1e-11


def test_what_random_numbers_make_of_a_weight_is_led_back_to_it_no_further():
    class Dropped(nn.Module):
        def forward(self, weight):
            return nn.functional.dropout(weight, 0.5)

    model = nn.Sequential(parametrize.register_parametrization(nn.Linear(5, 4), "weight", Dropped())).double()
    x = torch.randn(5, 5, dtype=torch.float64)
    state = copy.deepcopy(torch.get_rng_state())
    recorder = SpectralRecorder(model, groups=["a", "b"])
    assert torch.equal(torch.get_rng_state(), state)
    with recorder.batch(LABELS):
        output = model(x)
        output.retain_grad()
        output.square().sum().backward()
    recorder.end_epoch()
    expected = full_spectrum(output.grad.T @ x)
    assert abs(recorder.table["layers/0/gradient"][0, 0] - expected).max() < 1e-11
