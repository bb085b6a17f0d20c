"""Engines that split or fuse, where a model's parts are called one by one or where hooks hear some of its layers."""

import copy

import pytest
import torch
from references import full_spectrum
from torch import nn

from autospec import AutoSpecError, SpectralRecorder

LABELS = torch.tensor([0, 0, 1, -1, 1, 0])


def _losses(output):
    return (output.sin() + output.square() / 2).flatten(1).sum(1)


def _straight(model, x):
    return model[1](model[0](x).tanh())


def _moved(model, x):
    """The first part sees the samples in another order, as after sorting; the second in their own."""
    return model[1](model[0](x.flip(0)).tanh().flip(0))


def _assert_exact(recorder, model, x, losses):
    for group in (0, 1):
        alone = copy.deepcopy(model)
        alone.zero_grad()
        losses(alone, x)[group == LABELS].sum().backward()
        for layer in recorder.layers:
            parameters = dict(alone.named_parameters())
            expected = full_spectrum(parameters.get(layer, parameters.get(f"{layer}.weight")).grad)
            assert abs(recorder.table[f"layers/{layer}/gradient"][-1, 1 + group] - expected).max() < 1e-10


@pytest.mark.parametrize("engine", ["per_group", "passes", "fused", "fast"])
def test_samples_that_are_moved_between_parts_are_refused(engine):
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).double(), torch.randn(6, 4, dtype=torch.float64)
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", engine=engine)
    with recorder.batch(LABELS):
        _losses(_straight(model, x)).sum().backward()
    recorder.end_epoch()
    _assert_exact(recorder, model, x, lambda net, batch: _losses(_straight(net, batch)))
    message = "samples are in another order in what Linear is given"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS):
        _losses(_moved(model, x)).sum().backward()


def test_hooks_trace_samples_that_are_moved_between_parts():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", floor="formula")
    for call in (_straight, _moved, _moved):
        x = torch.randn(6, 4, dtype=torch.float64)
        with recorder.batch(LABELS):
            _losses(call(model, x)).sum().backward()
        recorder.end_epoch()
        _assert_exact(recorder, model, x, lambda net, batch, call=call: _losses(call(net, batch)))


@pytest.mark.parametrize("engine", ["hooks", "per_group", "fused", "fast"])
def test_as_many_steps_as_samples_where_a_recurrent_layer_tells_them_apart(engine):
    """The head alone would take steps for samples; the recurrent layer that is heard by hooks knows better."""

    class StepsFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.rnn(x.transpose(0, 1))[0])

    def losses(model, x):
        return _losses(model(x).transpose(0, 1))

    model, x = StepsFirst().double(), torch.randn(6, 6, 4, dtype=torch.float64)
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", engine=engine, floor="formula")
    with recorder.batch(LABELS):
        losses(model, x).sum().backward()
    recorder.end_epoch()
    _assert_exact(recorder, model, x, losses)


def test_a_first_batch_of_one_sample_is_refused_by_fused_products_and_a_later_one_is_not():
    model = nn.Sequential(nn.Linear(4, 3)).double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", engine="fused")
    with pytest.raises(AutoSpecError, match="the first batch holds one sample"), recorder.batch([0]):
        model(torch.randn(1, 4, dtype=torch.float64)).sum().backward()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", engine="fused")
    for samples in (6, 1, 6, 1):
        with recorder.batch(LABELS[:samples]):
            model(torch.randn(samples, 4, dtype=torch.float64)).sum().backward()
        recorder.end_epoch()


def test_a_weight_that_only_a_function_transform_uses_is_an_error_that_says_so():
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.members, self.head = nn.Parameter(torch.randn(3, 4, 5)), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(torch.vmap(lambda member: x @ member)(self.members).tanh().mean(0))

    model = Ensemble()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    message = "layer 'members'.*vmap and other function transforms leave no rows"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS):
        model(torch.randn(6, 4)).sum().backward()
