"""Whole transformers of Hugging Face, from tiny configurations."""

import copy
import warnings

import numpy as np
import pytest
import torch
from cases import captured
from references import full_spectrum, group_sums, weight_gradients

from autospec import AutoSpecWarning, SpectralRecorder
from autospec.store.schema import layer_name

transformers = pytest.importorskip("transformers")

LABELS = [0, 1, 1, 0]
SHARED = {"embeddings.position_embeddings", "wpe"}


def bert(dropout, attention):
    config = transformers.BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=6,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation=attention,
    )
    return transformers.BertModel(config), {"input_ids": torch.randint(11, (4, 5))}


def gpt2(dropout, attention):
    config = transformers.GPT2Config(
        vocab_size=11,
        n_positions=6,
        n_embd=8,
        n_layer=2,
        n_head=2,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation=attention,
    )
    return transformers.GPT2Model(config), {"input_ids": torch.randint(11, (4, 5))}


def vit(dropout, attention):
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=6,
        patch_size=3,
        num_channels=2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation=attention,
    )
    return transformers.ViTModel(config), {"pixel_values": torch.randn(4, 2, 6, 6)}


def made(build, dtype, dropout=0.0, attention=None):
    torch.manual_seed(1)
    model, batch = build(dropout, attention)
    batch = {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
    return model.to(dtype).train(), batch


def losses(model, batch):
    output = model(**batch)
    pooled = getattr(output, "pooler_output", None)
    parts = [output.last_hidden_state] if pooled is None else [output.last_hidden_state, pooled]
    return sum((part.sin() + part.square() / 2).flatten(1).sum(1) for part in parts)


def matrices(model):
    return {name: p for name, p in model.named_parameters() if p.dim() > 1 and min(p.flatten(1).shape) > 1}


each_model = pytest.mark.parametrize("build", [bert, gpt2, vit])
each_attention = pytest.mark.parametrize("attention", [None, "eager", "sdpa"])


@each_model
@each_attention
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_group_spectra_are_those_of_samples_taken_alone(build, attention, dtype, tolerance):
    model, batch = made(build, dtype, attention=attention)
    alone = weight_gradients(model, batch, losses)
    with SpectralRecorder(model, groups=["a", "b"]) as recorder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "layer '.*': called with rows that several", AutoSpecWarning)
        with recorder.batch(LABELS):
            losses(model, batch).mean().backward()
        recorder.end_epoch()
    for name, parameter in matrices(model).items():
        layer = layer_name(name)
        found = recorder.table[f"layers/{layer}/gradient"][0]
        floor = recorder.table[f"layers/{layer}/floor/gradient"][0]
        scale = floor / (torch.finfo(dtype).eps * min(parameter.flatten(1).shape) ** 0.5)
        expected = group_sums(alone[name], LABELS, 2)
        if layer in SHARED:
            assert np.isnan(found[1:]).all()
            found, expected = found[:1], expected[:1]
        for row, matrix, norms in zip(found, expected, scale, strict=False):
            assert abs(row - full_spectrum(matrix)).max() <= tolerance * norms


@each_model
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_with_dropout_the_parts_add_up_to_the_gradient(build, attention):
    model, batch = made(build, torch.float64, 0.2, attention)
    found = captured(model, lambda: losses(model, batch).mean().backward())
    assert set(found) == {layer_name(name) for name in matrices(model)}
    for name, parameter in matrices(model).items():
        for part in found[layer_name(name)]:
            products = [part.product(torch.tensor([sample])) for sample in range(part.samples)]
            norms = torch.stack(part.squared_norms()).sum(1).prod().sqrt()
            assert (sum(products) - parameter.grad.flatten(1)).norm() <= 1e-12 * norms


@each_model
def test_training_with_dropout_is_the_same_to_the_last_bit(build):
    def trained(record):
        model, batch = made(build, torch.float32, 0.2)
        model = copy.deepcopy(model)
        torch.manual_seed(5)
        layers = [f"!{layer}" for layer in SHARED & {layer_name(name) for name in matrices(model)}] or None
        recorder = SpectralRecorder(model, groups=["a", "b"], layers=layers) if record else None
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            if recorder:
                with recorder.batch(LABELS):
                    losses(model, batch).mean().backward()
            else:
                losses(model, batch).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [torch.get_rng_state(), *model.parameters()]

    assert all(torch.equal(with_it, without) for with_it, without in zip(trained(True), trained(False), strict=True))
