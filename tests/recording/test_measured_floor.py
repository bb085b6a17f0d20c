"""The measured noise floor: it holds, it hides little, and measuring leaves no trace."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from floor_study import STATISTICS, carried_ratios, ratios
from references import group_sums, sample_gradients
from torch import nn

from autospec import AutoSpecError, AutoSpecWarning, SpectralRecorder
from autospec.recording.measured_floor import is_measured_at
from autospec.spectra.floor import carried_floors, measurement
from autospec.spectra.settings import FLOORS

STUDY = Path(__file__).resolve().parents[1] / "floor_study.py"
LABELS = torch.arange(12) % 2


def _check(rows):
    """No difference above its floor, which per network, stage and statistic is at most 10 times the 99th percentile."""
    for *case, _, largest, percentile in rows:
        assert largest <= 1 + 1e-6, case  # float64 rounds too, by 2e-9 of what float32 does
        assert percentile >= 0.1, case


@pytest.mark.parametrize("task", ["autoencoding", "classification"])
@pytest.mark.parametrize("width", [8, 32])
def test_no_value_is_further_from_float64_than_the_measured_floor_which_hides_little(task, width):
    for stage, by_name in ratios("mlp", task, width, "relu", (0, 300), 2).items():
        _check([stage, name, len(own), own.max(), np.quantile(own, 0.99)] for name, own in by_name.items())


CAPABILITIES = ("default", "avx2", "the machine's own")
CASES = [
    (architecture, capability)
    for architecture in ("mlp", "rnn", "lstm", "bert", "cnn1d", "cnn2d", "cnn3d")
    for capability in CAPABILITIES
    if os.environ.get("AUTOSPEC_WHOLE_GRID")
    or architecture in ("mlp", "rnn", "lstm")
    or capability not in CAPABILITIES[:2]
]
"""The slower networks on other instruction sets than the machine's own are left to `make test-grid`."""


def test_late_in_classification_the_formula_leaves_out_most_of_the_rounding():
    """Where probabilities are near 1 the residual is a few roundings large: what floor='formula' says of itself."""
    found = ratios("mlp", "classification", 32, "relu", (800,), 1, floor="formula")[800]
    assert found["gradient"].max() > 10
    assert found["adjoint"].max() > 10


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "capability"), CASES)
def test_it_holds_over_architectures_widths_early_and_late_on_every_instruction_set(architecture, capability):
    """Both tasks, at the start and after 300 epochs: over 10,000 values each."""
    widths = "8" if architecture in ("bert", "cnn2d", "cnn3d") else "8,32,64"
    chosen = {} if capability == "the machine's own" else {"ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run(
        [sys.executable, STUDY, architecture, widths, "300", "2"],
        capture_output=True,
        text=True,
        env={**os.environ, **chosen},
        check=True,
    )
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert sum(row[6] for row in rows) > 10_000
    _check([*row[:6], *row[6:]] for row in rows)


# --- what is measured ------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, middle=None):
        super().__init__()
        self.first, self.middle, self.second = nn.Linear(6, 4), middle or nn.Tanh(), nn.Linear(4, 6)

    def forward(self, x):
        return self.second(self.middle(self.first(x)))


def _losses(model, inputs):
    return (model(inputs) - inputs).square().mean(1)


def _mean_loss(model, inputs):
    return _losses(model, inputs).mean()


def _one_record(model, step, **options):
    recorder = SpectralRecorder(model, groups=["a", "b"], **options)
    with recorder.batch(LABELS):
        step(model).backward()
    recorder.end_epoch()
    return recorder


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
def test_a_gradients_floor_is_at_least_the_norm_of_its_difference_to_float64(engine):
    model, inputs = Net(), torch.randn(12, 6)
    recorder = _one_record(model, lambda net: _mean_loss(net, inputs), engine=engine, floor="measured")
    for name in ("first", "second"):
        expected = group_sums(sample_gradients(model, f"{name}.weight", inputs, _losses), LABELS.tolist(), 2)
        for place, matrix in enumerate(expected):
            values = recorder.table[f"layers/{name}/gradient"][0, place]
            floor = recorder.table[f"layers/{name}/floor/gradient"][0, place]
            moved = abs(values - torch.linalg.svdvals(matrix).numpy()).max()
            assert moved <= floor * (1 + 1e-6)
            assert 0 < floor < 1e-6 * float(matrix.norm())
        assert recorder.table[f"layers/{name}/floor/measured"][0] == 1
    with_formula = _one_record(model, lambda net: _mean_loss(net, inputs), engine=engine, floor="formula")
    assert "layers/first/floor/measured" not in [array.field.path for array in with_formula.table]


def test_batches_of_a_record_add_up_in_float64_too():
    model, parts = Net(), torch.randn(3, 12, 6)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    for inputs in parts:
        with recorder.batch(LABELS):
            _mean_loss(model, inputs).backward()
    recorder.end_epoch()
    expected = sum(sample_gradients(model, "first.weight", inputs, _losses).sum(0) for inputs in parts)
    values, floor = (recorder.table[f"layers/first/{name}"][0, 0] for name in ("gradient", "floor/gradient"))
    assert abs(values - torch.linalg.svdvals(expected).numpy()).max() <= floor * (1 + 1e-6) < 1e-5 * values[0]


def _by_parts(net, inputs):
    """The loop calls the parts, not the model, and uses a weight itself."""
    hidden = net.middle(net.first(inputs))
    return (net.second(hidden) - inputs).square().mean() + 1e-3 * net.second.bias.square().sum()


def _in_place(net, inputs):
    output = net(inputs)
    output -= inputs
    total = torch.zeros(())
    total += output.float().square().mean(dtype=torch.float32)
    return total


def _chosen(net, inputs):
    output = net(inputs).clone()
    output[0] = 0
    return (output - inputs).square()[3:].mean() + output[:3].exp().mean()


def _chosen_in_float64(net, inputs):
    output = net(inputs)
    kept = torch.cat([torch.zeros_like(output[:1]), output[1:]])
    return (kept - inputs).square()[3:].mean() + kept[:3].exp().mean()


STEPS = {
    "the model's parts": (_by_parts, _by_parts),
    "in place, in lower precision": (_in_place, _mean_loss),
    "indices": (_chosen, _chosen_in_float64),
}


@pytest.mark.parametrize("name", STEPS)
def test_whatever_the_loop_computes_from_the_output_is_repeated_in_float64(name):
    step, in_float64 = STEPS[name]
    model, inputs = Net(), torch.randn(12, 6)
    recorder = _one_record(model, lambda net: step(net, inputs))
    double = copy.deepcopy(model).double()
    double.zero_grad()
    in_float64(double, inputs.double()).backward()
    for layer in ("first", "second"):
        values, floor = (recorder.table[f"layers/{layer}/{path}"][0, 0] for path in ("gradient", "floor/gradient"))
        expected = torch.linalg.svdvals(double.get_submodule(layer).weight.grad).numpy()
        assert abs(values - expected).max() <= floor * (1 + 1e-6)
        assert floor < 1e-6 * values[0]


def test_half_precision_has_the_floor_of_half_precision():
    model, inputs = Net(), torch.randn(12, 6)

    def step(net):
        with torch.autocast("cpu", torch.bfloat16):
            output = net(inputs)
        return (output.float() - inputs).square().mean()

    recorder = _one_record(model, step)
    expected = sample_gradients(model, "first.weight", inputs, _losses).sum(0)
    values, floor = (recorder.table[f"layers/first/{path}"][0, 0] for path in ("gradient", "floor/gradient"))
    assert abs(values - torch.linalg.svdvals(expected).numpy()).max() <= floor * (1 + 1e-6)
    assert 1e-4 * values[0] < floor < 0.1 * values[0]


def test_the_scale_of_float16_training_is_undone_in_float64_too():
    model, inputs = Net(), torch.randn(12, 6)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    recorder = _one_record(model, lambda net: scaler.scale(_mean_loss(net, inputs)), scaler=scaler)
    assert (
        0
        < recorder.table["layers/first/floor/gradient"][0, 0]
        < 1e-6 * recorder.table["layers/first/gradient"][0, 0, 0]
    )


def test_a_float64_model_keeps_the_formula():
    model, inputs = Net().double(), torch.randn(12, 6, dtype=torch.float64)
    recorder = _one_record(model, lambda net: _mean_loss(net, inputs))
    assert "layers/first/floor/measured" not in [array.field.path for array in recorder.table]
    assert recorder.table["layers/first/floor/gradient"][0, 0] < 1e-14


# --- what it leaves behind -------------------------------------------------------------------------------------------


def _trained(floor):
    """A model with buffers and dropout after some steps, what hooks of its own have seen, and the random state."""
    torch.manual_seed(2)
    model = Net(nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Dropout(0.4)))
    seen = []
    model.first.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    inputs = torch.randn(12, 6)
    recorder = SpectralRecorder(model, groups=["a", "b"], floor=floor) if floor else None
    for _ in range(20):
        optimizer.zero_grad()
        if recorder:
            with recorder.batch(LABELS):
                _mean_loss(model, inputs).backward()
            recorder.end_epoch()
        else:
            _mean_loss(model, inputs).backward()
        optimizer.step()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return model.state_dict(), gradients, torch.get_rng_state(), seen, recorder


def test_training_buffers_gradients_random_state_and_hooks_are_as_without_it():
    weights, gradients, random_state, seen, _ = _trained(None)
    with_weights, with_gradients, with_random_state, with_seen, recorder = _trained("measured")
    assert all(torch.equal(value, with_weights[name]) for name, value in weights.items())
    assert all(torch.equal(value, with_gradients[name]) for name, value in gradients.items())
    assert torch.equal(random_state, with_random_state)
    assert seen == with_seen
    # the copy dropped the same units: what is left of the difference is rounding
    gradient, floor = (recorder.table[f"layers/first/{path}"] for path in ("gradient", "floor/gradient"))
    assert (floor[:, 0] < 1e-4 * gradient[:, 0, 0]).all()
    assert (recorder.table["layers/first/floor/measured"] == 1).all()


def test_no_hook_and_no_precision_is_left_after_an_exception():
    model, inputs = Net(), torch.randn(12, 6)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with pytest.raises(ZeroDivisionError), recorder.batch(LABELS):
        _mean_loss(model, inputs)
        raise ZeroDivisionError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.get_default_dtype() == torch.float32


# --- where it cannot be had ------------------------------------------------------------------------------------------


class OnlyFloat32(nn.Module):
    def forward(self, x):
        if x.dtype == torch.float64:
            raise TypeError("this kernel takes float32 alone")
        return x.tanh()


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn(x.shape, dtype=x.dtype) * (1 if x.dtype == torch.float32 else 5)


def _random_loss(net, inputs):
    return (net(inputs) * torch.rand_like(inputs)).square().mean() + torch.nn.functional.dropout(
        net(inputs), 0.5
    ).mean()


REFUSED = {
    "a kernel": (Net(OnlyFloat32()), _mean_loss, "this kernel takes float32 alone"),
    "other random numbers": (Net(Noise()), _mean_loss, "the model's output is another one in float64"),
    "a random loss": (Net(), _random_loss, "the loss draws random numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_where_float64_cannot_be_had_the_formula_stands_in_and_a_warning_says_why(name):
    model, loss, reason = REFUSED[name]
    inputs = torch.randn(12, 6)
    with pytest.warns(AutoSpecWarning, match=f"noise floor of epoch 0 could not be measured in float64 .*{reason}"):
        recorder = _one_record(model, lambda net: loss(net, inputs))
    expected = _one_record(model, lambda net: loss(net, inputs), floor="formula")
    found, formula = (taken.table["layers/second/floor/gradient"][0] for taken in (recorder, expected))
    assert found == pytest.approx(formula, rel=1 if "random" in name else 1e-6)
    assert "layers/second/floor/measured" not in [array.field.path for array in recorder.table]


def test_a_backward_pass_that_is_not_repeated_is_told():
    model, inputs = Net(), torch.randn(12, 6)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        _mean_loss(model, inputs).backward()
        torch.autograd.backward(_mean_loss(model, inputs))
    with pytest.warns(AutoSpecWarning, match="of layer 'second' only some backward passes could be repeated"):
        recorder.end_epoch()
    assert "layers/first/floor/measured" not in [array.field.path for array in recorder.table]


def test_a_record_that_cannot_be_measured_is_told_from_those_that_are():
    model, inputs = Net(), torch.randn(12, 6)
    recorder = SpectralRecorder(model, groups=["a", "b"], floor="measured")
    for loss in (_mean_loss, _random_loss, _mean_loss):
        with recorder.batch(LABELS):
            loss(model, inputs).backward()
        if loss is _random_loss:
            with pytest.warns(AutoSpecWarning, match="noise floor of epoch 1 could not be measured"):
                recorder.end_epoch()
        else:
            recorder.end_epoch()
    assert np.isnan(recorder.table["layers/first/floor/measured"]).tolist() == [False, True, False]


def test_an_unknown_floor_is_an_error():
    with pytest.raises(AutoSpecError, match="floor=exact: allowed are calibrated, measured, formula"):
        SpectralRecorder(Net(), groups=["a"], floor="exact")


def test_a_file_says_how_the_floor_of_each_layer_was_had(tmp_path):
    for floor, text in (
        ("measured", "|float32 - float64| where floor/measured is 1,"),
        ("formula", "eps"),
    ):
        path = tmp_path / f"{floor}.h5"
        _one_record(Net(), lambda net: _mean_loss(net, torch.ones(12, 6)), path=path, floor=floor).close()
        with h5py.File(path) as file:
            assert file["layers/first"].attrs["gradient_floor"].startswith(text)


# --- carried floors --------------------------------------------------------------------------------------------------


def _recorded_epochs(recorder, model, inputs, epochs):
    """Records of a network that trains on."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        optimizer.zero_grad()
        with recorder.batch(LABELS):
            _mean_loss(model, inputs).backward()
        optimizer.step()
        recorder.end_epoch()


def _twins(count=3):
    """Copies of one model, and inputs."""
    torch.manual_seed(3)
    model, inputs = Net(), torch.randn(12, 6)
    return [copy.deepcopy(model) for _ in range(count)], inputs


def test_records_are_measured_ever_more_rarely():
    assert [n for n in range(100) if is_measured_at(n)] == [0, 1, 2, 3, 5, 8, 12, 18, 27, 41, 62, 93]


@pytest.mark.parametrize("engine", ["hooks", "aliased"])
def test_between_measurements_the_floor_is_three_times_what_the_last_three_say(engine):
    models, inputs = _twins()
    options = {"groups": ["a", "b"], "engine": engine}
    if engine == "hooks":
        options["statistics"] = ("gradient", "activation", "adjoint")
    recorders = [SpectralRecorder(m, floor=f, **options) for m, f in zip(models, FLOORS, strict=True)]
    for recorder, model in zip(recorders, models, strict=True):
        _recorded_epochs(recorder, model, inputs, 8)
    calibrated, measured, formula = (recorder.table for recorder in recorders)
    assert calibrated["layers/first/floor/measured"].tolist() == [1, 1, 1, 1, 0, 1, 0, 0]
    for path in [array.field.path for array in formula if "/floor/" in array.field.path]:
        ratio = measured[path] / formula[path]
        for epoch, last in {0: None, 3: None, 5: None, 4: (1, 2, 3), 6: (2, 3, 5), 7: (2, 3, 5)}.items():
            expected = measured[path][epoch]
            if last:
                relative = formula[path][epoch] * ratio[list(last)].max()
                expected = 3 * np.maximum(relative, measured[path][list(last)].max(0))
            np.testing.assert_allclose(calibrated[path][epoch], expected, rtol=1e-12)


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_a_run_that_goes_on_from_a_checkpoint_has_the_floors_of_an_undisturbed_one(stop):
    models, inputs = _twins(2)
    undisturbed, first = (SpectralRecorder(model, groups=["a", "b"]) for model in models)
    _recorded_epochs(undisturbed, models[0], inputs, 10)
    _recorded_epochs(first, models[1], inputs, stop)
    state, weights = first.state_dict(), copy.deepcopy(models[1].state_dict())
    _recorded_epochs(first, models[1], inputs, 2)  # lost: it is rewound
    second = SpectralRecorder(models[1], groups=["a", "b"])
    for recorder in (first, second):
        models[1].load_state_dict(weights)
        recorder.load_state_dict(state)
        _recorded_epochs(recorder, models[1], inputs, 10 - stop)
        for path in ("gradient", "floor/gradient", "floor/measured"):
            np.testing.assert_array_equal(
                recorder.table[f"layers/first/{path}"], undisturbed.table[f"layers/first/{path}"]
            )


def test_a_recorder_without_its_earlier_measurements_measures_at_once(tmp_path):
    (model,), inputs = _twins(1)
    recorder = SpectralRecorder(model, tmp_path / "s.h5", groups=["a", "b"])
    _recorded_epochs(recorder, model, inputs, 6)
    recorder.close()
    resumed = SpectralRecorder(model, tmp_path / "s.h5", groups=["a", "b"], resume=True)
    _recorded_epochs(resumed, model, inputs, 3)
    assert resumed.table["layers/first/floor/measured"][5:].tolist() == [1, 1, 0, 1]
    resumed.close()


def test_a_record_that_should_be_measured_and_cannot_takes_the_last_measurements():
    (model,), inputs = _twins(1)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    _recorded_epochs(recorder, model, inputs, 1)
    with recorder.batch(LABELS):
        _random_loss(model, inputs).backward()
    with pytest.warns(AutoSpecWarning, match="noise floor of epoch 1 could not be measured"):
        recorder.end_epoch()
    assert recorder.table["layers/first/floor/measured"].tolist() == [1, 0]


def test_a_group_without_samples_has_no_floor_and_one_without_measurements_the_formulas():
    formula = {"gradient": torch.tensor([1.0, 0.0]), "adjoint": torch.tensor([1.0, 2.0])}
    earlier = [measurement({"gradient": torch.tensor([4.0, 5.0])}, {"gradient": torch.tensor([2.0, torch.nan])})]
    floors = carried_floors(formula, earlier)
    assert floors["gradient"].tolist() == [12.0, 0.0]
    assert floors["adjoint"].tolist() == [1.0, 2.0]


def test_a_checkpoint_with_ratios_alone_has_the_next_record_measured():
    (model,), inputs = _twins(1)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    _recorded_epochs(recorder, model, inputs, 5)
    state = recorder._batches._floor.state_dict()
    ratios = [
        (epoch, {k: {q: pair[0] for q, pair in of.items()} for k, of in layers.items()})
        for epoch, layers in state["measurements"]
    ]
    recorder._batches._floor.load_state_dict({"tried": True, "measurements": ratios})
    _recorded_epochs(recorder, model, inputs, 2)
    assert recorder.table["layers/first/floor/measured"].tolist() == [1, 1, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("task", ["autoencoding", "classification"])
def test_few_values_are_further_from_float64_than_a_carried_floor(task):
    """At most 1 in 1,000 values between measurements, and the floor is at most 10 times the 99th percentile."""
    found = {name: [] for name in STATISTICS}
    for seed in range(2):
        for name, values in carried_ratios("mlp", task, 8, "tanh", 60, seed).items():
            found[name].append(values)
    for name, parts in found.items():
        values = np.concatenate(parts)
        assert (values > 1).mean() < 1e-3, name
        assert np.quantile(values, 0.99) >= 0.1, name
