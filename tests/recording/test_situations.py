"""Layers in the situations that training loops put them in; each against samples taken one by one."""

import contextlib
import gc
import warnings
import weakref

import numpy as np
import pytest
import torch
from references import full_spectrum, group_sums, sample_gradients
from torch import nn
from torch.utils.checkpoint import checkpoint

from autospec import AutoSpecError, AutoSpecWarning, GradientFactors, SpectralRecorder, register_rule

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
    """Its layers have two names each."""

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
SITUATIONS = [(net, engine) for net in NETS for engine in ("hooks", "per_group", "passes", "fused", "fast")]
SITUATIONS.remove((CheckpointedReentrant, "per_group"))  # refused, see below
SITUATIONS.remove((CheckpointedReentrant, "passes"))


def is_close(recorder, model, inputs, dtype, losses=_losses, labels=LABELS):
    """Whether every layer's record is that of samples taken alone, to 1e-10 or 1e-5 of ‖A‖‖Δ‖."""
    names = [name for name in recorder.layers if name.endswith(("first", "second"))]
    assert len(names) == 2
    for name in names:
        expected = group_sums(sample_gradients(model, f"{name}.weight", inputs, losses), labels, 2)
        scale = float(recorder.table[f"layers/{name}/floor/gradient"][0, 0]) / torch.finfo(dtype).eps
        tolerance = (1e-10 if dtype == torch.float64 else 1e-5) * scale
        for values, matrix in zip(recorder.table[f"layers/{name}/gradient"][0], expected, strict=True):
            assert abs(values - full_spectrum(matrix)).max() <= tolerance
    return True


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("net", "engine"), SITUATIONS)
def test_spectra_are_those_of_samples_taken_alone(net, engine, dtype):
    model, inputs = net().to(dtype), torch.randn(N, 5, dtype=dtype)
    before = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    with recorder.batch(LABELS):
        _losses(model, inputs).mean().backward()
    recorder.end_epoch()
    assert {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)} == before
    assert is_close(recorder, model, inputs, dtype)


@pytest.mark.parametrize("engine", ["per_group", "passes"])
def test_a_checkpoint_that_runs_past_the_groups_passes_is_refused(engine):
    model = CheckpointedReentrant()
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    message = f"engine='{engine}' does not take checkpointing with use_reentrant=True; .* engine='fast' or 'hooks'"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS):
        _losses(model, torch.randn(N, 5)).mean().backward()


class GivesContainer(nn.Linear):
    """A layer whose own output is a container of tensors, the last of them a second time and untrained."""

    def __init__(self, container):
        super().__init__(4, 5)
        self.container = container

    def forward(self, x):
        y = nn.functional.linear(x, self.weight, self.bias)
        return self.container(y, y.detach())


def _model_output(y, other):
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=y, hidden_states=(other,))


CONTAINERS = {
    "tuple": (lambda y, other: (y, other), lambda output: output[0]),
    "list": (lambda y, other: [y, [other]], lambda output: output[0]),
    "dict": (lambda y, other: {"y": y, "more": {"other": other}}, lambda output: output["y"]),
    "ModelOutput": (_model_output, lambda output: output.last_hidden_state),
}


@register_rule(GivesContainer)
def gives_container(layer, call):
    return {"weight": GradientFactors(call.activation, call.adjoint)}


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_layer_whose_output_is_a_container(container):
    wrap, unwrap = CONTAINERS[container]
    if container == "ModelOutput":
        pytest.importorskip("transformers")

    class Wrapping(Net):
        def __init__(self):
            super().__init__()
            self.second = GivesContainer(wrap)

        def forward(self, x):
            return unwrap(self.second(torch.tanh(self.first(x))))

    model, inputs = Wrapping().double(), torch.randn(N, 5, dtype=torch.float64)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        _losses(model, inputs).mean().backward()
    recorder.end_epoch()
    assert is_close(recorder, model, inputs, torch.float64)


class Dropping(Net):
    """Dropout with the mask of its last call kept, to be used again sample by sample."""

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        if len(x) == N:
            self.mask = nn.functional.dropout(torch.ones_like(hidden), 0.5)
        return self.second(hidden * self.mask)


def test_dropout():
    model, inputs = Dropping().double(), torch.randn(N, 5, dtype=torch.float64)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        _losses(model, inputs).mean().backward()
    recorder.end_epoch()
    assert 0 < (model.mask == 0).sum() < model.mask.numel()
    places = iter(range(2 * N))
    masks = model.mask

    def losses(net, x):
        net.mask = masks[next(places) % N]
        return _losses(net, x)

    assert is_close(recorder, model, inputs, torch.float64, losses)


def test_a_shared_weight_is_one_layer_and_its_rows_are_kept_per_use():
    model = Tied()
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=("gradient", "activation", "adjoint"))
    with recorder.batch(LABELS):
        _losses(model, torch.randn(N, 5)).mean().backward()
    recorder.end_epoch()
    assert list(recorder._header.layers) == ["first", "second"]
    assert "layers/second/uses/third/activation" in recorder.table
    assert "layers/second/uses/third/gradient" not in recorder.table

    for use in ("", "uses/third/"):
        assert recorder.table[f"layers/second/{use}activation"].shape == (1, 3, 4)


def test_what_is_said_of_a_shared_weight_is_of_the_right_rows():
    """The gradient is of the rows of all uses, whose ranks add up; activations and adjoints are of one use each."""
    model = Tied().double()
    statistics = ("gradient", "activation", "adjoint", "rank")
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=statistics)
    labels = [0, 1, 1, 1, 1, 1]
    with recorder.batch(labels):
        _losses(model, torch.randn(N, 5, dtype=torch.float64)).mean().backward()
    recorder.end_epoch()
    table, layer = recorder.table, "layers/second"
    assert table[f"{layer}/rows"].tolist() == [[12, 2, 10]]
    assert table[f"{layer}/own_rows"].tolist() == table[f"{layer}/uses/third/rows"].tolist() == [[6, 1, 5]]
    assert "layers/first/own_rows" not in table
    assert table[f"{layer}/rank/numerical"][0, 1] == 2  # one sample, two uses
    assert (table[f"{layer}/rank/numerical"] <= table[f"{layer}/rank/bound"]).all()
    scaled = recorder.spectra.scaled("second", "activation").values[0]
    assert scaled == pytest.approx(table[f"{layer}/activation"][0] / np.sqrt([[6], [1], [5]]))


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
@pytest.mark.parametrize("frozen", ["first", "second"])
def test_frozen_weights_are_left_out_and_the_others_are_right(frozen, engine):
    model, inputs = Net().double(), torch.randn(N, 5, dtype=torch.float64)
    model.get_submodule(frozen).requires_grad_(False)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    with recorder.batch(LABELS):
        _losses(model, inputs).mean().backward()
    recorder.end_epoch()
    (trained,) = {"first", "second"} - {frozen}
    assert recorder.layers == [trained]
    expected = group_sums(sample_gradients(model, f"{trained}.weight", inputs, _losses), LABELS, 2)
    for values, matrix in zip(recorder.table[f"layers/{trained}/gradient"][0], expected, strict=True):
        assert abs(values - full_spectrum(matrix)).max() < 1e-12


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


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
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
    total = recorder._record.sums.layers["0"].gradient.gradients()
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


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
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


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
def test_float16_under_a_grad_scaler(engine):
    """Adjoints that would vanish in float16 are there, and the scale is not."""
    model, inputs = Net(), torch.randn(N, 5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

    def tiny(net, x):
        return 1e-7 * _losses(net, x)

    recorder = SpectralRecorder(model, groups=["a", "b"], scaler=scaler, engine=engine, floor="formula")
    with recorder.batch(LABELS):
        with torch.autocast("cpu", torch.float16):
            output = model(inputs)
        scaler.scale(1e-7 * output.float().square().sum(1).mean()).backward()
    recorder.end_epoch()
    for name in ("first", "second"):
        expected = group_sums(sample_gradients(model, f"{name}.weight", inputs, tiny), LABELS, 2)
        for values, matrix in zip(recorder.table[f"layers/{name}/gradient"][0], expected, strict=True):
            assert abs(values - full_spectrum(matrix)).max() < 5e-3 * float(matrix.norm())
        # of float16, though the scale is undone in float32
        assert recorder.table[f"layers/{name}/floor/gradient"][0, 0] >= torch.finfo(torch.float16).eps * values[0]


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
def test_a_scale_that_overflows_is_nan_with_a_warning_and_the_run_goes_on(engine):
    model, inputs = Net(), torch.randn(N, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, backoff_factor=2.0**-116)
    recorder = SpectralRecorder(model, groups=["a", "b"], scaler=scaler, engine=engine)
    for overflows in (True, False):
        with recorder.batch(LABELS):
            scaler.scale(1e20 * _losses(model, inputs).mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if overflows:
            with pytest.warns(AutoSpecWarning, match="NaN or infinity in its gradient at epoch 0"):
                recorder.end_epoch()
        else:
            recorder.end_epoch()
    gradient = recorder.table["layers/first/gradient"]
    assert np.isnan(gradient[0]).all()
    assert np.isfinite(gradient[1]).all()


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
@pytest.mark.parametrize("ends", ["well", "with an exception", "with a layer that cannot be explained"])
def test_no_hook_attribute_or_graph_is_left(engine, ends):
    model = Checkpointed()
    before = {name: _fingerprint(module) for name, module in model.named_modules()}
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    inputs = torch.randn(N, 5)
    in_graph = weakref.ref(inputs)
    with contextlib.suppress(RuntimeError, AutoSpecError), recorder.batch(LABELS[:-1] if "layer" in ends else LABELS):
        loss = _losses(model, inputs).mean()
        if ends == "with an exception":
            raise RuntimeError("own")
        loss.backward()
    with contextlib.suppress(UnboundLocalError):
        del loss
    del inputs
    gc.collect()
    assert in_graph() is None
    assert {name: _fingerprint(module) for name, module in model.named_modules()} == before
    recorder.close()
    assert {name: _fingerprint(module) for name, module in model.named_modules()} == before


def _fingerprint(module):
    """Everything that a module holds, its parameters by identity."""
    held = {name: dict(value) if isinstance(value, dict) else value for name, value in vars(module).items()}
    return {name: [*map(id, value.values())] if name == "_parameters" else value for name, value in held.items()}


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
def test_a_compiled_model_of_many_layers(compiler):
    """More of them than torch.compile would make anew, were it to look into the hooks."""
    model = nn.Sequential(*[nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(20)])
    inputs = torch.randn(N, 5)
    recorder = SpectralRecorder(compiler(model), groups=["a", "b"], layers=["0.0", "19.0"])
    with recorder.batch(LABELS):
        _losses(recorder._model, inputs).mean().backward()
    recorder.end_epoch()
    for name in recorder.layers:
        expected = group_sums(sample_gradients(model, f"{name}.weight", inputs, _losses), LABELS, 2)
        for values, matrix in zip(recorder.table[f"layers/{name}/gradient"][0], expected, strict=True):
            assert abs(values - full_spectrum(matrix)).max() < 1e-5


@pytest.mark.slow
def test_a_compiled_transformer_that_changes_its_inputs_before_they_come_in(compiler):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=6,
    )
    model = compiler(transformers.BertModel(config).eval())
    recorder = SpectralRecorder(model, groups=["a", "b"])
    for _ in range(2):
        with recorder.batch(LABELS):
            model(input_ids=torch.randint(11, (N, 5))).last_hidden_state.square().mean().backward()
        recorder.end_epoch()
    assert np.isfinite(recorder.table["layers/encoder.layer.0.attention.self.query/gradient"]).all()


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
            assert len(recorder.table.epochs) == step + 1  # none waits for its spectra
            counts.append(tensors())
    # each measured floor keeps six, at ever rarer steps; one tensor left behind by every step would be 989
    assert counts[1] <= counts[0] + 100


class StepsFirst(nn.Module):
    """A recurrent layer that takes steps first, and a head on all of its steps or on the last."""

    def __init__(self, every_step):
        super().__init__()
        self.rnn, self.head, self.every_step = nn.LSTM(3, 5), nn.Linear(5, 2), every_step

    def forward(self, x):
        states = self.rnn(x)[0]
        return self.head(states if self.every_step else states[-1])


@pytest.mark.parametrize("layers", [None, ["head"]])
@pytest.mark.parametrize("every_step", [True, False])
def test_as_many_steps_as_samples_are_told_apart(layers, every_step):
    """With the steps first, even where the recurrent layer that tells it is not recorded."""
    model = StepsFirst(every_step).double()
    x = torch.randn(6, 6, 3, dtype=torch.float64)
    with SpectralRecorder(model, groups=["a", "b"], layers=layers) as recorder:
        with recorder.batch([0, 0, 0, 1, 1, 1]):
            model(x).square().sum().backward()
        recorder.end_epoch()
    model.zero_grad()
    model(x[:, :3]).square().sum().backward()
    for name in recorder.layers:
        weight = model.get_parameter(name if name.startswith("rnn") else f"{name}.weight")
        assert abs(recorder.table[f"layers/{name}/gradient"][0, 1] - full_spectrum(weight.grad)).max() < 1e-10
