"""Layers in the situations that training loops put them in; each against samples taken one by one."""

import gc
import warnings

import pytest
import torch
from references import full_spectrum, group_sums, sample_gradients
from torch import nn
from torch.utils.checkpoint import checkpoint

from autospec import AutoSpecError, AutoSpecWarning, SpectralRecorder

N = 6
LABELS = [0, 1, 1, 0, 0, 1]


class Net(nn.Module):
    """Two layers; subclasses change how they are called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class UsedTwice(Net):
    def forward(self, x):
        return self.second(torch.tanh(self.first(x))) + self.second(torch.sin(self.first(2 * x)))


class Tied(Net):
    """The decoder is the encoder's weight, transposed by hand into a second module that shares a third's."""

    def __init__(self):
        super().__init__()
        self.third = nn.Linear(4, 5)
        self.third.weight = self.second.weight

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.second(hidden) * self.third(hidden.square())


class InPlace(Net):
    def forward(self, x):
        return torch.sigmoid_(self.second(torch.relu_(self.first(x[:, None]))))[:, 0]


class GivesTuple(Net):
    def forward(self, x):
        return (None, [super().forward(x)])[1][0]


class GivesDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()
        self.first, self.second = self.net.first, self.net.second

    def forward(self, x):
        return {"y": [self.net(x)], "n": 3}["y"][0]


class Checkpointed(Net):
    reentrant = False

    def forward(self, x):
        return self.second(checkpoint(lambda z: torch.tanh(self.first(z)), x, use_reentrant=self.reentrant))


class CheckpointedReentrant(Checkpointed):
    reentrant = True

    def forward(self, x):
        return super().forward(x.clone().requires_grad_())


class WithDropout(Net):
    """Dropout that does nothing, among layers that matter."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.0)

    def forward(self, x):
        return self.second(self.dropout(torch.tanh(self.first(x))))


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.first, self.second = nn.Conv2d(2, 3, 2, bias=False), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        image = x[:, :4].reshape(-1, 1, 2, 2).expand(-1, 2, 2, 2).repeat(1, 1, 2, 2)
        return self.second(self.first(image.contiguous(memory_format=torch.channels_last)).relu()).flatten(1)


def _losses(model, x):
    return model(x).square().sum(1)


NETS = [Net, UsedTwice, Tied, InPlace, GivesTuple, GivesDict, WithDropout, ChannelsLast]
NETS += [Checkpointed, CheckpointedReentrant]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("net", NETS)
def test_spectra_are_those_of_samples_taken_alone(net, dtype):
    model, inputs = net().to(dtype), torch.randn(N, 5, dtype=dtype)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        _losses(model, inputs).mean().backward()
    recorder.end_epoch()
    names = [name for name in recorder._header.layers if name.endswith(("first", "second"))]
    assert len(names) == 2
    for name in names:
        expected = group_sums(sample_gradients(model, f"{name}.weight", inputs, _losses), LABELS, 2)
        scale = float(recorder.table[f"layers/{name}/floor/gradient"][0, 0]) / torch.finfo(dtype).eps
        tolerance = (1e-10 if dtype == torch.float64 else 1e-5) * scale
        for values, matrix in zip(recorder.table[f"layers/{name}/gradient"][0], expected, strict=True):
            assert abs(values - full_spectrum(matrix)).max() <= tolerance


def test_a_shared_weight_is_one_layer_and_its_rows_are_kept_per_use():
    model = Tied()
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=("gradient", "activation", "adjoint"))
    with recorder.batch(LABELS):
        _losses(model, torch.randn(N, 5)).mean().backward()
    recorder.end_epoch()
    assert list(recorder._header.layers) == ["first", "second"]
    assert "layers/second/uses/third/activation" in recorder.table
    assert "layers/second/uses/third/gradient" not in recorder.table


def test_frozen_weights_are_left_out():
    model = Net()
    model.second.requires_grad_(False)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        _losses(model, torch.randn(N, 5)).mean().backward()
    recorder.end_epoch()
    assert list(recorder._header.layers) == ["first"]


def test_a_layer_that_gets_no_gradient_is_nan_with_a_warning():
    class Unused(Net):
        def forward(self, x):
            self.second(torch.zeros(len(x), 4))
            return self.first(x)

    model = Unused()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        _losses(model, torch.randn(N, 5)).mean().backward()
    with pytest.warns(AutoSpecWarning, match="layer 'second': no gradient arrived at epoch 0; stored as NaN"):
        recorder.end_epoch()


@pytest.mark.parametrize("engine", ["hooks", "aliased"])
def test_several_backward_passes_over_one_batch_add_up(engine):
    model, inputs = Net().double(), torch.randn(N, 5, dtype=torch.float64)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    with recorder.batch(LABELS):
        out = model(inputs)
        out.square().sum(1).mean().backward(retain_graph=True)
        out.sin().sum(1).mean().backward()
    recorder.end_epoch()

    def both(net, x):
        out = net(x)
        return out.square().sum(1) + out.sin().sum(1)

    expected = group_sums(sample_gradients(model, "first.weight", inputs, both), LABELS, 2)
    for values, matrix in zip(recorder.table["layers/first/gradient"][0], expected, strict=True):
        assert abs(values - full_spectrum(matrix)).max() < 1e-10


def test_batches_of_an_epoch_add_up():
    model, inputs = Net().double(), torch.randn(N, 5, dtype=torch.float64)
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum")
    for part in (slice(0, 2), slice(2, 6)):
        with recorder.batch(LABELS[part]):
            _losses(model, inputs[part]).sum().backward()
    recorder.end_epoch()
    expected = [
        N * matrix for matrix in group_sums(sample_gradients(model, "first.weight", inputs, _losses), LABELS, 2)
    ]
    for values, matrix in zip(recorder.table["layers/first/gradient"][0], expected, strict=True):
        assert abs(values - full_spectrum(matrix)).max() < 1e-9
    assert recorder.table["groups/weight"].tolist() == [[6.0, 3.0, 3.0]]


def test_batch_norm_is_recorded_as_the_part_of_the_gradient_that_comes_through_a_groups_rows():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 5)).double()
    inputs = torch.randn(N, 5, dtype=torch.float64)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        _losses(model, inputs).mean().backward()
    total = recorder._sums._layers["0"].gradient.gradients()
    assert torch.allclose(total[0], model[0].weight.grad, atol=1e-12)
    assert torch.allclose(total[1] + total[2], total[0], atol=1e-12)


def test_autocast_to_bfloat16():
    model, inputs = Net(), torch.randn(N, 5)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS), torch.autocast("cpu", torch.bfloat16):
        loss = _losses(model, inputs).mean()
        loss.backward()
    recorder.end_epoch()
    expected = group_sums(sample_gradients(model, "first.weight", inputs, _losses), LABELS, 2)
    floor = recorder.table["layers/first/floor/gradient"][0]
    assert floor[0] > 1e-3  # of bfloat16, not of the weights
    for values, matrix, noise in zip(recorder.table["layers/first/gradient"][0], expected, floor, strict=True):
        assert abs(values - full_spectrum(matrix)).max() < 4 * noise


@pytest.mark.parametrize("engine", ["hooks", "aliased"])
def test_the_scale_of_a_grad_scaler_is_undone(engine):
    model, inputs = Net(), torch.randn(N, 5)
    tables = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        recorder = SpectralRecorder(model, groups=["a", "b"], scaler=scaler, engine=engine)
        with recorder.batch(LABELS):
            loss = _losses(model, inputs).mean()
            (loss if scaler is None else scaler.scale(loss)).backward()
        recorder.end_epoch()
        tables.append(recorder.table)
    plain, scaled = (table["layers/second/gradient"] for table in tables)
    assert plain == pytest.approx(scaled, rel=1e-5, abs=1e-6)


@pytest.fixture
def compiler():
    """torch.compile with nothing compiled before, and nothing left for other tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._dynamo.reset()
        yield lambda model: torch.compile(model, backend="aot_eager")
        torch._dynamo.reset()


@pytest.mark.slow
def test_a_compiled_model_that_the_recorder_has_before_its_first_call(compiler):
    model, inputs = Net(), torch.randn(N, 5)
    compiled = compiler(model)
    recorder = SpectralRecorder(compiled, groups=["a", "b"])
    for _ in range(2):
        with recorder.batch(LABELS):
            _losses(compiled, inputs).mean().backward()
        recorder.end_epoch()
    recorder.close()
    assert list(recorder._header.layers) == ["first", "second"]
    expected = group_sums(sample_gradients(model, "first.weight", inputs, _losses), LABELS, 2)
    for record in recorder.table["layers/first/gradient"]:
        for values, matrix in zip(record, expected, strict=True):
            assert abs(values - full_spectrum(matrix)).max() < 1e-5
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.slow
def test_a_compiled_model_that_ran_before_is_an_error(compiler):
    model, inputs = compiler(Net()), torch.randn(N, 5)
    _losses(model, inputs).mean().backward()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with pytest.raises(AutoSpecError, match="before the first call"), recorder.batch(LABELS):
        _losses(model, inputs).mean().backward()


@pytest.mark.slow
def test_memory_does_not_grow_over_a_thousand_steps():
    model, inputs = Net(), torch.randn(N, 5)
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=("gradient", "activation", "adjoint"))

    def tensors():
        gc.collect()
        return sum(issubclass(type(entry), torch.Tensor) for entry in gc.get_objects())

    counts = []
    for step in range(1000):
        with recorder.batch(LABELS):
            _losses(model, inputs).mean().backward()
        recorder.end_epoch()
        if step in (10, 999):
            counts.append(tensors())
    assert counts[1] <= counts[0]
