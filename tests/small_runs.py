"""Small recorded runs for tests of reading, analysis and drawing."""

import numpy as np
import torch
from torch import nn

from autospec import SpectralRecorder
from autospec.store.permuted_pairs import PairPermutations, PermutationDesign

SAMPLES = 12


def design(epochs, permutations=30):
    """Permutations of the first half of the samples against the second, each sample a subject."""
    observed = np.repeat([1, 2], SAMPLES // 2).astype(np.int8)
    random = np.random.default_rng(0)
    members = np.stack([observed, *(random.permutation(observed) for _ in range(permutations))])
    return PermutationDesign((PairPermutations("SZ", "HC", (), members),), {}, np.arange(SAMPLES), tuple(epochs))


def record(path=None, epochs=4, rate=0.1, changed_at=None, groups=("SZ", "HC"), width=5, scale=1.0, **options):
    """The closed recorder of a small network; from ``changed_at`` on it learns twice as fast."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3)).double()
    inputs, target = torch.randn(SAMPLES, 6).double(), torch.randn(SAMPLES, 3).double()
    label = torch.arange(SAMPLES) * len(groups) // SAMPLES
    with SpectralRecorder(model, path, groups=list(groups), **options) as recorder:
        for epoch in range(epochs):
            with recorder.batch(label) as batch:
                losses = (model(inputs) - target).square().mean(1)
                loss = scale * (losses.sum() if options.get("reduction") == "sum" else losses.mean())
                loss.backward()
                batch.losses(losses)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(rate * (2 if changed_at is not None and epoch >= changed_at else 1) * parameter.grad)
            model.zero_grad()
            recorder.end_epoch(loss=loss.item())
    return recorder
