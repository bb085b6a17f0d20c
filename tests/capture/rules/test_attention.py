"""Attention: every row of every projection against the equations, written out."""

import math

import pytest
import torch
from cases import captured
from references import full_spectrum
from torch import nn

from autospec import AutoSpecError, SpectralRecorder
from autospec.capture import forward_hooks
from autospec.capture.rules import attention


def written_out(layer, query, key, value):
    """The rows of the four projections, ``(A, Δ)`` each (n, time, width), from softmax(q kᵀ / √width) v."""
    width, heads = layer.embed_dim, layer.num_heads
    biases = layer.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), layer.in_proj_weight.chunk(3), biases, strict=True))
    by_head = [part.unflatten(2, (heads, width // heads)).transpose(1, 2) for part in (q, k, v)]
    scores = by_head[0] @ by_head[1].mT / math.sqrt(width // heads)
    attended = (scores.softmax(-1) @ by_head[2]).transpose(1, 2).flatten(2)
    output = attended @ layer.out_proj.weight.T + layer.out_proj.bias
    for tensor in (q, k, v, output):
        tensor.retain_grad()
    output.square().sum().backward()
    return [(query, q.grad), (key, k.grad), (value, v.grad), (attended, output.grad)]


def agrees(part, rows):
    return all(
        torch.allclose(found[0], expected, rtol=0, atol=1e-12)
        for found, expected in zip((part.activation, part.adjoint), rows, strict=True)
    )


def test_self_attention_is_one_linear_layer_and_another():
    layer = nn.MultiheadAttention(6, 3, batch_first=True).double()
    x = torch.randn(4, 5, 6, dtype=torch.float64)
    found = captured(layer, lambda: layer(x, x, x)[0].square().sum().backward())
    (_, q), (_, k), (_, v), out = written_out(layer, x, x, x)
    assert set(found) == {"in_proj_weight", "out_proj"}
    assert agrees(found["in_proj_weight"][0], (x, torch.cat([q, k, v], dim=-1)))
    assert agrees(found["out_proj"][0], out)


def test_cross_attention_is_three_products():
    layer = nn.MultiheadAttention(6, 3).double()
    x, y = torch.randn(4, 5, 6, dtype=torch.float64), torch.randn(4, 2, 6, dtype=torch.float64)
    time_first = (x.mT.movedim(2, 0), y.transpose(0, 1), y.transpose(0, 1))
    found = captured(layer, lambda: layer(*time_first)[0].square().sum().backward())
    *inputs, out = written_out(layer, x, y, y)
    assert [part.first_row for part in found["in_proj_weight"]] == [0, 6, 12]
    assert all(agrees(*pair) for pair in zip(found["in_proj_weight"], inputs, strict=True))
    assert agrees(found["out_proj"][0], out)


def test_one_layer_may_attend_to_itself_and_to_others():
    layer = nn.MultiheadAttention(6, 3, batch_first=True).double()
    x, y = torch.randn(4, 5, 6, dtype=torch.float64), torch.randn(4, 2, 6, dtype=torch.float64)
    with SpectralRecorder(layer, groups=["a"], statistics=["gradient", "adjoint"]) as recorder:
        with recorder.batch([0] * 4):
            (layer(x, x, x)[0].square().sum() + layer(x, y, y)[0].square().sum()).backward()
        recorder.end_epoch()
    gradient = full_spectrum(layer.in_proj_weight.grad)
    scale = float(recorder.table["layers/in_proj_weight/floor/gradient"][0, 1])
    assert abs(recorder.table["layers/in_proj_weight/gradient"][0, 1] - gradient).max() < 100 * scale
    alone = written_out(layer, x, x, x), written_out(layer, x, y, y)
    dense = torch.cat([adjoint for _, adjoint in alone[0][:3]], dim=-1).flatten(0, 1)
    blocks = torch.block_diag(*(adjoint.flatten(0, 1) for _, adjoint in alone[1][:3]))
    expected = full_spectrum(torch.cat([dense, blocks]))
    assert abs(recorder.table["layers/in_proj_weight/adjoint"][0, 1] - expected).max() < 1e-10


class _Multiplied(torch.Tensor):
    """An identity that is multiplied by."""


@pytest.mark.parametrize("options", [{}, {"need_weights": False}, {"attn_mask": torch.ones(5, 5).triu(1).bool()}])
def test_what_is_not_multiplied_by_identities_is_the_same_to_the_last_bit(options, monkeypatch):
    layer = nn.MultiheadAttention(24, 3, batch_first=True, add_bias_kv=True)
    x = torch.randn(4, 5, 24)
    found = captured(layer, lambda: layer(x, x, x, **options)[0].square().sum().backward())
    monkeypatch.setattr(attention, "_Identity", _Multiplied)
    expected = captured(layer, lambda: layer(x, x, x, **options)[0].square().sum().backward())
    assert set(found) == {"in_proj_weight", "out_proj"}
    for name, (part,) in found.items():
        assert part.adjoint.any()
        assert torch.equal(part.activation, expected[name][0].activation)
        assert torch.equal(part.adjoint, expected[name][0].adjoint)


def test_a_loss_on_the_attention_weights_alone():
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double()
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    found = captured(layer, lambda: layer(x, x, x)[1].square().sum().backward())
    everyone = torch.arange(3)
    assert torch.allclose(found["in_proj_weight"][0].product(everyone), layer.in_proj_weight.grad, atol=1e-13)
    assert "out_proj" not in found  # no gradient reaches it


def test_masks_of_unlike_types_are_warned_about_once():
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double()
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    causal, absent = torch.full((5, 5), -torch.inf).double().triu(1), torch.arange(5).expand(3, 5) > 3
    with pytest.warns(UserWarning, match="mismatched") as caught:
        found = captured(
            layer, lambda: layer(x, x, x, attn_mask=causal, key_padding_mask=absent)[0].square().sum().backward()
        )
    assert sum("mismatched" in str(one.message) for one in caught) == 1
    assert torch.allclose(found["in_proj_weight"][0].product(torch.arange(3)), layer.in_proj_weight.grad, atol=1e-13)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_whole_transformer_layer_with_dropout(norm_first):
    model = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.3, norm_first=norm_first, batch_first=True).double()
    x, memory = torch.randn(4, 3, 8).double(), torch.randn(4, 5, 8).double()
    mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64)
    found = captured(model, lambda: model(x, memory, tgt_mask=mask, tgt_is_causal=True).square().sum().backward())
    assert len(found) == 6
    for name, parts in found.items():
        parameter = model.get_parameter(name if name.endswith("weight") else f"{name}.weight")
        product = torch.zeros_like(parameter)
        for part in parts:
            product[part.first_row : part.first_row + part.height] += part.product(torch.arange(4))
        assert torch.allclose(product, parameter.grad, atol=1e-11)


def test_one_sequence_without_a_batch_is_refused():
    model = nn.ModuleDict({"encoder": nn.MultiheadAttention(4, 2)})
    x = torch.randn(5, 4)
    recorder = SpectralRecorder(model, groups=["a"])
    message = r"layer 'encoder' \(MultiheadAttention\): called without a batch dimension"
    with pytest.raises(AutoSpecError, match=message), recorder.batch([0]):
        model["encoder"](x, x, x)[0].sum().backward()


@pytest.mark.parametrize("need_weights", [True, False])
def test_dropout_that_comes_out_otherwise_is_an_error(need_weights, monkeypatch):
    model = nn.Sequential(nn.MultiheadAttention(8, 2, dropout=0.5))
    x = torch.randn(5, 4, 8)
    other = torch.Generator().manual_seed(7).get_state()
    monkeypatch.setattr(forward_hooks, "random_state", lambda tree: {"cpu": other})
    with pytest.raises(AutoSpecError, match=r"layer '0' .*: its dropout could not be replayed with the random state"):
        captured(model, lambda: model[0](x, x, x, need_weights=need_weights)[0].square().sum().backward())


def test_the_mode_at_the_call_counts_and_not_that_at_the_backward_pass():
    layer = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True).double()
    x = torch.randn(3, 5, 4, dtype=torch.float64)

    def run():
        loss = layer.train()(x, x, x)[0].square().sum()
        layer.eval()
        return loss

    found = captured(layer, lambda: run().backward())
    assert torch.allclose(found["in_proj_weight"][0].product(torch.arange(3)), layer.in_proj_weight.grad, atol=1e-13)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_sum_in_place_after_the_layer(need_weights, batch_first):
    layer = nn.MultiheadAttention(4, 2, batch_first=batch_first).double()
    x = torch.randn(3, 3, 4, dtype=torch.float64)
    found = captured(layer, lambda: layer(x, x, x, need_weights=need_weights)[0].add_(x).square().sum().backward())
    for name, parameter in (("in_proj_weight", layer.in_proj_weight), ("out_proj", layer.out_proj.weight)):
        assert torch.allclose(found[name][0].product(torch.arange(3)), parameter.grad, atol=1e-13)


def test_cross_attention_over_few_rows_in_a_decoder_layer():
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(64, 2, 16, dropout=0.0, batch_first=True).double()
    target, memory = torch.randn(2, 3, 4, 64, dtype=torch.float64)
    with SpectralRecorder(layer, groups=["a", "b"]) as recorder:
        with recorder.batch([0, 0, 1]):
            layer(target, memory).square().sum().backward()
        recorder.end_epoch()
    layer.zero_grad()
    layer(target[:2], memory[:2]).square().sum().backward()
    for name in ("self_attn.in_proj_weight", "multihead_attn.in_proj_weight", "multihead_attn.out_proj.weight"):
        expected = full_spectrum(layer.get_parameter(name).grad)
        stored = recorder.table[f"layers/{name.removesuffix('.weight')}/gradient"][0, 1]
        assert abs(stored - expected).max() < 1e-10 * expected[0]
