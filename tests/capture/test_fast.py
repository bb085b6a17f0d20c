import logging

import pytest
import torch
from torch import nn

from autospec import AutoSpecError, SpectralRecorder
from autospec.capture.fast import FastEngine
from autospec.spectra.groups import SampleGroups
from autospec.store.read import open_spectra

N = 8
LABELS = torch.arange(N) % 3


def _recorder(model, engine="fast", **arguments):
    return SpectralRecorder(model, groups=["a", "b", "c"], engine=engine, **arguments)


def _trained(recorder, model, inputs, labels=LABELS):
    with recorder.batch(labels):
        model(inputs).square().flatten(1).sum(1).mean().backward()
    sums = {name: recorder._record.sums.layers[name].gradient.gradients() for name in recorder.layers}
    recorder.end_epoch()
    return sums


def test_the_way_is_chosen_on_the_first_batch_and_said_in_file_and_log(tmp_path, caplog):
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    with caplog.at_level(logging.INFO, "autospec"), _recorder(model, path=tmp_path / "s.h5") as recorder:
        for _ in range(2):
            _trained(recorder, model, torch.randn(N, 5))
    (message,) = [record.getMessage() for record in caplog.records if "chose" in record.getMessage()]
    spectra = open_spectra(tmp_path / "s.h5")
    way = spectra.attributes["engine_way"]
    assert way in ("per_group", "passes", "fused")
    assert spectra.attributes["engine"] == "fast"
    assert message.startswith(f"engine='fast' chose {way} (")
    assert all(name in message for name in ("per_group", "passes", "fused", " ms"))


class _Recurrent(nn.Module):
    """A layer that hooks hear within the engine ``fused``, and one that is fused."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(self.cells(inputs)[0])


def test_a_timed_pass_does_the_work_of_a_recorded_one_and_leaves_nothing_on_weights():
    model = _Recurrent()
    engine, inputs = _recorder(model)._listening.engine, torch.randn(N, 6, 5)
    fused = engine._ways["fused"]
    cells = SampleGroups.of(LABELS, 4)
    with fused.trying(cells):
        fused.prove(model, ((inputs,), {}), cells)
    with fused.trying(cells):
        outputs = fused.forward_of(model)(inputs)
        gradients = torch.autograd.grad(outputs.sum(), list(model.parameters()))
        arrived = {name: parts.sum(0) for name, parts in fused.arrived.items()}
    expected = {name: one for (name, _), one in zip(model.named_parameters(), gradients, strict=True) if one.dim() > 1}
    assert len(expected) == 3
    assert len(arrived) == 3
    for name, gradient in expected.items():
        torch.testing.assert_close(arrived[name.removesuffix(".weight")], gradient, rtol=1e-4, atol=1e-5)
    assert all(weight._backward_hooks is None for weight in model.parameters())


def test_the_trial_leaves_gradients_buffers_and_random_state():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    recorder = _recorder(model)
    left = [torch.ones_like(weight) for weight in model.parameters()]
    for weight, gradient in zip(model.parameters(), left, strict=True):
        weight.grad = gradient
    inputs = torch.randn(N, 5)
    drawn = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="own"), recorder.batch(LABELS):
        model(inputs)
        raise RuntimeError("own")
    assert all(weight.grad is gradient for weight, gradient in zip(model.parameters(), left, strict=True))
    assert all(bool((gradient == 1).all()) for gradient in left)
    after = torch.get_rng_state()
    torch.set_rng_state(drawn)
    model(inputs)
    assert torch.equal(after, torch.get_rng_state())
    assert int(model[1].num_batches_tracked) == 2  # this batch and the pass above, no trial


class Noisy(nn.Module):
    """Draws random numbers whatever its training flag says."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x + torch.randn_like(x))


class Bare(nn.Module):
    """Uses a parameter that no module's rule explains."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(5, 4))

    def forward(self, x):
        return x @ self.scale


@pytest.mark.parametrize(
    ("make", "ways"),
    [
        (Noisy, {"fused"}),
        (Bare, {"per_group", "passes", "fused"}),
        (lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)), {"fused"}),
    ],
)
def test_only_ways_that_are_exact_are_taken(make, ways):
    model = make()
    recorder = _recorder(model, floor="formula")  # noise is other noise in float64
    _trained(recorder, model, torch.randn(N, 5))
    assert recorder._listening.engine.chosen in ways


class UsedTwice(nn.Module):
    """Its weight comes back transposed, past its module."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, x):
        return nn.functional.linear(self.layer(x).tanh(), self.layer.weight.T)


class Doubled(UsedTwice):
    """Its module is given another weight than its own."""

    def forward(self, x):
        weights = {"weight": 2 * self.layer.weight, "bias": self.layer.bias}
        return torch.func.functional_call(self.layer, weights, (x,))


@pytest.mark.parametrize("make", [UsedTwice, Doubled])
def test_a_weight_whose_gradient_no_product_gives_is_not_fused_however_quick_that_is(make, monkeypatch):
    monkeypatch.setattr(FastEngine, "_seconds", lambda self, way, *_: 0.0 if way.name == "fused" else 1.0)
    torch.manual_seed(0)
    model = make()
    recorder = _recorder(model, floor="formula")
    _trained(recorder, model, torch.randn(N, 5))
    engine = recorder._listening.engine
    assert engine.chosen in ("per_group", "passes")
    assert "layer 'layer' is used outside its module as well, or changed" in engine._reasons["fused"]


class Centred(nn.Module):
    """Couples the samples, past any rule."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(5, 4))

    def forward(self, x):
        y = x @ self.scale
        return y - y.mean(0)


@pytest.mark.filterwarnings("ignore:.*script_method")
def test_a_model_that_no_way_is_exact_for_is_refused_with_every_reason():
    model = Centred()
    with pytest.raises(AutoSpecError, match=r"no way is exact .* use engine='hooks'\. .*depend on one another"):
        _trained(_recorder(model), model, torch.randn(N, 5))
    model = torch.compile(nn.Linear(5, 4))
    with pytest.raises(AutoSpecError, match="does not take compiled models"):
        _recorder(model)


def test_a_continued_run_goes_the_same_way():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    recorder = _recorder(model)
    _trained(recorder, model, torch.randn(N, 5))
    state = recorder.state_dict()
    for way in ("per_group", "passes", "fused"):
        again = _recorder(model)
        again.load_state_dict({**state, "way": way})
        _trained(again, model, torch.randn(N, 5))
        assert again._listening.engine.chosen == again.spectra.attributes["engine_way"] == way
