"""Nothing of a batch stays in memory: a long run would fill it."""

import gc

import pytest
import torch
from torch import nn

from autospec import SpectralRecorder

MODELS = {
    "a linear layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)),
    "several outputs": lambda: nn.LSTM(4, 3, batch_first=True),
    "attention": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
}


def _tensors() -> int:
    gc.collect()
    # by type alone: to ask some of torch's own objects for more warns
    return sum(type(entry) is torch.Tensor for entry in gc.get_objects())


@pytest.mark.parametrize("name", MODELS)
def test_tensors_do_not_pile_up_over_batches(name):
    model = MODELS[name]()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    counts = {}
    for batch in range(40):
        with recorder.batch([0, 1, 1]):
            output = model(torch.randn(3, 3, 4))
            (output[0] if isinstance(output, tuple) else output).sum().backward()
        recorder.end_epoch()
        del output
        assert recorder.table.epochs  # none waits for its spectra
        if batch in (9, 39):
            counts[batch] = _tensors()
    # floors and traces keep a few numbers at ever rarer batches; one tensor left behind by every batch would be 30
    assert counts[39] < counts[9] + 20
