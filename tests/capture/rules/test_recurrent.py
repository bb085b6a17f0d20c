"""Recurrent layers: every row of every weight against a loop over the cells' equations."""

import copy

import pytest
import torch
from cases import captured
from hypothesis import given, settings
from hypothesis import strategies as st
from references import RecurrentLoop
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from autospec import AutoSpecError, SpectralRecorder
from autospec.spectra.groups import SampleGroups

KINDS = [nn.RNN, nn.GRU, nn.LSTM]


def losses(tensors):
    return sum((tensor.sin() + tensor.square() / 2).sum() for tensor in tensors)


@given(
    kind=st.sampled_from([*KINDS, "projected", "relu"]),
    layers=st.integers(1, 2),
    both_ways=st.booleans(),
    bias=st.booleans(),
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    packed=st.booleans(),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_rows_are_those_of_a_loop_over_the_cells(kind, layers, both_ways, bias, lengths, packed, seed):
    torch.manual_seed(seed)
    extra = {"projected": {"proj_size": 2}, "relu": {"nonlinearity": "relu"}}.get(kind, {})
    kind = {"projected": nn.LSTM, "relu": nn.RNN}.get(kind, kind)
    layer = kind(3, 4, layers, bias=bias, bidirectional=both_ways, batch_first=True, **extra).double()
    n, longest = len(lengths), max(lengths)
    lengths = lengths if packed else [longest] * n
    x = torch.randn(n, longest, 3, dtype=torch.float64)
    depth = layers * (1 + both_ways)
    widths = [layer.proj_size or 4] + ([4] if kind is nn.LSTM else [])
    states = [torch.randn(depth, n, width, dtype=torch.float64) for width in widths]

    def run():
        entered = pack_padded_sequence(x, torch.tensor(lengths), True, False) if packed else x
        output, final = layer(entered, tuple(states) if kind is nn.LSTM else states[0])
        return losses([output.data if packed else output, *(final if kind is nn.LSTM else [final])])

    loop = RecurrentLoop(copy.deepcopy(layer))
    for sample, length in enumerate(lengths):
        output, final = loop.run(x[sample, :length], [state[:, sample] for state in states])
        losses([output, *final]).backward()
    for name, (part,) in captured(layer, lambda: run().backward()).items():
        assert part.rows_per_sample.tolist() == lengths
        for sample, rows in enumerate(loop.rows[name]):
            for time, (activation, value) in rows.items():
                assert torch.allclose(part.activation[0, sample, time], activation, rtol=0, atol=1e-12)
                assert torch.allclose(part.adjoint[0, sample, time], value.grad, rtol=0, atol=1e-11)
            assert not part.activation[0, sample, len(rows) :].any()
            assert not part.adjoint[0, sample, len(rows) :].any()


@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_without_a_batch_is_refused(kind):
    model = nn.ModuleDict({"encoder": kind(3, 4)})
    recorder = SpectralRecorder(model, groups=["a"])
    message = r"layer 'encoder' \(\w+\): called without a batch dimension; a single"
    with pytest.raises(AutoSpecError, match=message), recorder.batch([0]):
        model["encoder"](torch.randn(5, 3))[0].sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_inside_a_gpu_kernel_is_refused_when_the_recorder_is_made(kind):
    model = nn.Sequential(kind(3, 4, 2, dropout=0.5, device="meta"))
    with pytest.raises(
        AutoSpecError, match=r"layer '0.weight_ih_l0' \(\w+\): dropout between its layers is drawn inside the GPU"
    ):
        SpectralRecorder(model, groups=["a"])


@pytest.mark.parametrize("kind", KINDS)
def test_no_dropout_is_replayed_in_evaluation(kind):
    model = nn.Sequential(kind(3, 4, 2, dropout=0.9)).double().eval()
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for name, (part,) in captured(model, lambda: model(x)[0].square().sum().backward()).items():
        assert torch.allclose(part.product(torch.arange(2)), model.get_parameter(name).grad, atol=1e-12)


def test_a_layer_with_frozen_weights_hands_over_the_others():
    model = nn.Sequential(nn.LSTM(3, 4)).double()
    model[0].weight_ih_l0.requires_grad_(False)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    found = captured(model, lambda: model(x)[0].square().sum().backward())
    assert list(found) == ["0.weight_hh_l0"]
    product = found["0.weight_hh_l0"][0].product(torch.arange(2))
    assert torch.allclose(product, model[0].weight_hh_l0.grad, atol=1e-12)


def test_half_precision_under_autocast_comes_close():
    model = nn.Sequential(nn.LSTM(3, 4, batch_first=True))
    x = torch.randn(6, 5, 3)

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            output = model(x)[0]
        return output.float().square().sum()

    for name, (part,) in captured(model, lambda: run().backward()).items():
        norms = torch.stack(part.squared_norms()).sum(1).sqrt().prod()
        gradient = model.get_parameter(name).grad
        assert (part.product(torch.arange(6)) - gradient).norm() < 1e-2 * norms


def test_a_backward_pass_that_begins_at_the_output_itself():
    model = nn.Sequential(nn.LSTM(3, 4)).double()
    x, seed = torch.randn(5, 2, 3, dtype=torch.float64), torch.randn(5, 2, 4, dtype=torch.float64)
    for name, (part,) in captured(model, lambda: model(x)[0].backward(seed)).items():
        assert torch.allclose(part.product(torch.arange(2)), model.get_parameter(name).grad, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_an_activation_in_place_after_the_layer(kind, batch_first):
    model = nn.Sequential(kind(3, 4, batch_first=batch_first)).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    samples = torch.arange(len(x) if batch_first else x.shape[1])
    found = captured(model, lambda: model(x)[0].relu_().square().sum().backward())
    assert len(found) == 2
    for name, (part,) in found.items():
        assert torch.allclose(part.product(samples), model.get_parameter(name).grad, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
@pytest.mark.parametrize("both_ways", [False, True])
def test_an_output_that_is_written_over_is_computed_again(kind, both_ways):
    torch.manual_seed(0)
    layer = kind(3, 4, bidirectional=both_ways, batch_first=True).double()
    x = torch.randn(5, 40, 3, dtype=torch.float64)

    def backward(writes):
        output = layer(x)[0]
        scaled = output.clone()
        if writes:
            output.zero_()
        scaled.sin().sum().backward()

    kept, written = (captured(layer, lambda writes=writes: backward(writes)) for writes in (False, True))
    for name, (part,) in kept.items():
        assert torch.allclose(part.activation, written[name][0].activation, rtol=0, atol=1e-12)
        assert torch.allclose(part.adjoint, written[name][0].adjoint, rtol=0, atol=1e-12)
        assert part.adjoint.abs().max() > 0


def test_the_norms_and_grams_of_an_adjoint_are_taken_once_for_both_weights(monkeypatch):
    from autospec.spectra import factors

    layer = nn.RNN(3, 4, batch_first=True)
    parts = [part for (part,) in captured(layer, lambda: layer(torch.randn(5, 9, 3))[0].sum().backward()).values()]
    seen = []
    real = factors.squared_norm
    monkeypatch.setattr(factors, "squared_norm", lambda side: seen.append(side) or real(side))
    for part in parts:
        for norms, side in zip(part.squared_norms(), part.stored, strict=True):
            assert torch.allclose(norms, side.double().square().sum((0, 2, 3)), rtol=1e-6)
    assert len(seen) == 3
    cells = SampleGroups.of(torch.tensor([0, 1, 0, 1, 1]), 3)
    of_adjoint = [part.grams(False, cells) for part in parts]
    assert of_adjoint[0] is of_adjoint[1]
    rows = parts[0].adjoint[0].double()
    for cell, samples in enumerate(cells.samples):
        assert torch.allclose(of_adjoint[0][cell], torch.einsum("npo,npq->oq", rows[samples], rows[samples]))
    other = SampleGroups.of(torch.tensor([1, 1, 1, 1, 0]), 3)
    assert not torch.equal(parts[1].grams(False, other), of_adjoint[0])
