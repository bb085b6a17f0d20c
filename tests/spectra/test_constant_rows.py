"""Activations that stay the same are decomposed once, and never mistaken for others."""

import numpy as np
import pytest
import torch
from torch import nn

from autospec import SpectralRecorder
from autospec.spectra import rows

LABELS = torch.arange(12) % 2


def _records(model, batches, dtype=torch.float32):
    """The activation spectra of records, each of its own batches of inputs and labels."""
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=["activation"], floor="formula")
    for record in batches:
        for inputs, labels in record:
            with recorder.batch(labels):
                model(inputs).square().mean().backward()
        recorder.end_epoch()
    return recorder.table["layers/0/activation"]


def _expected(record):
    inputs = torch.cat([inputs for inputs, _ in record]).flatten(0, -2).double()
    labels = torch.cat([labels.repeat_interleave(inputs[0, ..., 0].numel()) for inputs, labels in record])
    chosen = [inputs, inputs[labels == 0], inputs[labels == 1]]
    return np.stack([torch.linalg.svdvals(part).numpy() for part in chosen])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(12, 5), (12, 9, 5)])
def test_what_changes_at_the_same_address_is_noticed(shape, dtype):
    model = nn.Sequential(nn.Linear(5, 4)).to(dtype)
    inputs = torch.randn(shape, dtype=dtype)
    batches = [[(inputs, LABELS)]] * 3
    kept = _records(model, batches)
    for values in kept:
        np.testing.assert_allclose(values, _expected(batches[0]), rtol=1e-6)
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=["activation"], floor="formula")
    for change in range(6):
        labels = LABELS if change != 4 else LABELS.flip(0)
        if change == 3:
            inputs.numpy()[:] += 1  # past torch's version counter
        with recorder.batch(labels):
            model(inputs).square().mean().backward()
        recorder.end_epoch()
        np.testing.assert_allclose(
            recorder.table["layers/0/activation"][change], _expected([(inputs, labels)]), rtol=1e-6
        )


def test_batches_of_a_record_add_up_behind_a_constant_first_one():
    model, first, second = nn.Sequential(nn.Linear(5, 4)), torch.randn(12, 5), torch.randn(12, 5)
    batches = [[(first, LABELS), (second, LABELS)]] * 4 + [[(first, LABELS)]] * 2
    for values, record in zip(_records(model, batches), batches, strict=True):
        np.testing.assert_allclose(values, _expected(record), rtol=1e-6)


def test_an_activation_that_stays_is_decomposed_once(monkeypatch):
    solved = []
    solve = rows.of_gram
    monkeypatch.setattr(rows, "of_gram", lambda gram: solved.append(gram) or solve(gram))
    inputs = torch.randn(12, 5)
    _records(nn.Sequential(nn.Linear(5, 4)), [[(inputs, LABELS)]] * 9)
    assert len(solved) <= 3
