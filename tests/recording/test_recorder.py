import warnings

import numpy as np
import pytest
import torch
from references import full_spectrum, group_sums, sample_gradients
from torch import nn

import autospec
from autospec import AutoSpecError, AutoSpecWarning, SpectralRecorder


def _model(dtype=torch.float32, inputs=6, width=4):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Linear(width, inputs)).to(dtype)


def _losses(model, inputs):
    return (model(inputs) - inputs).square().flatten(1).mean(1)


def _step(recorder, model, inputs, labels):
    with recorder.batch(labels) as batch:
        losses = _losses(model, inputs)
        losses.mean().backward()
        batch.losses(losses)


def _norm_products(model, inputs, labels, groups, layer):
    """‖A_c‖ ‖Δ_c‖ of the two layers' factors, whole batch first, in float64."""
    model = _model(torch.float64, inputs.shape[-1], model[0].out_features)
    inputs = inputs.double()
    hidden = model[0](inputs)
    hidden.retain_grad()
    middle = model[1](hidden.clone())
    out = model[2](middle)
    out.retain_grad()
    (out - inputs).square().flatten(1).mean(1).mean().backward()
    activation, adjoint = (inputs, hidden.grad) if layer == "0" else (middle, out.grad)
    keep = [torch.ones(len(inputs), dtype=bool)] + [torch.tensor(labels) == group for group in range(groups)]
    return [float(activation[rows].detach().norm() * adjoint[rows].norm()) for rows in keep]


CASES = {
    "unequal groups": ([0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 0, 0], (12, 6)),
    "an empty group": ([0, 0, 2, 2], (4, 6)),
    "a batch of one": ([1], (1, 6)),
    "fewer samples than the layer": ([0, 1], (2, 6)),
    "more samples than the layer": ([0, 1, 2] * 20, (60, 6)),
    "samples of no group": ([0, -1, -1, 1, 2, -1], (6, 6)),
    "leading dimensions": ([0, 1, 2, 0], (4, 3, 2, 6)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_spectra_equal_those_of_single_samples_added_up(case, dtype):
    labels, shape = CASES[case]
    model, inputs = _model(dtype), torch.randn(shape, dtype=dtype)
    recorder = SpectralRecorder(model, groups=["a", "b", "c"], floor="formula")
    _step(recorder, model, inputs, torch.tensor(labels))
    recorder.end_epoch()
    for layer, parameter in (("0", "0.weight"), ("2", "2.weight")):
        expected = group_sums(sample_gradients(model, parameter, inputs, _losses), labels, 3)
        scales = _norm_products(model, inputs, labels, 3, layer)
        found = recorder.table[f"layers/{layer}/gradient"][0]
        floors = recorder.table[f"layers/{layer}/floor/gradient"][0]
        for values, matrix, scale, floor in zip(found, expected, scales, floors, strict=True):
            tolerance = 1e-10 if dtype == torch.float64 else 1e-5
            assert abs(values - full_spectrum(matrix)).max() <= tolerance * scale
            assert floor == pytest.approx(torch.finfo(dtype).eps * np.sqrt(4) * scale, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activation_and_adjoint_spectra_over_several_batches(dtype):
    model = _model(dtype)
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=("gradient", "activation", "adjoint"))
    batches = [(torch.randn(n, 6, dtype=dtype), torch.arange(n) % 2) for n in (5, 3, 8)]
    outputs = []

    def keep(module, inputs, output):
        output.retain_grad()
        outputs.append(output)

    handle = model[2].register_forward_hook(keep)
    for inputs, labels in batches:
        _step(recorder, model, inputs, labels)
    handle.remove()
    adjoints = [output.grad for output in outputs]
    recorder.end_epoch()
    labels = torch.cat([labels for _, labels in batches])
    rows = {"0/activation": torch.cat([inputs for inputs, _ in batches]), "2/adjoint": torch.cat(adjoints)}
    for path, matrix in rows.items():
        found = recorder.table[f"layers/{path}"][0]
        for values, kept in zip(found, (labels >= 0, labels == 0, labels == 1), strict=True):
            true = full_spectrum(matrix[kept])
            assert abs(values[: len(true)] - true).max() < (1e-12 if dtype == torch.float64 else 1e-6) * true[0]
    assert recorder.table["groups/rows"][0].tolist() == [16, 9, 7]
    assert recorder.table["groups/weight"][0].tolist() == pytest.approx([3, 3 / 5 + 2 / 3 + 0.5, 2 / 5 + 1 / 3 + 0.5])


def test_groups_add_up_to_the_gradient_the_optimizer_sees():
    model, inputs = _model(), torch.randn(20, 6)
    recorder = SpectralRecorder(model, groups=["a", "b", "c"])
    _step(recorder, model, inputs, torch.arange(20) % 3)
    sums = recorder._record.sums.layers["0"].gradient.gradients()
    assert torch.allclose(sums[0].float(), model[0].weight.grad, atol=1e-7)
    assert torch.allclose(sums[1:].sum(0), sums[0], atol=1e-12)


def test_cosine_cancellation_and_group_loss():
    model, inputs = _model(torch.float64), torch.randn(10, 6, dtype=torch.float64)
    labels = torch.arange(10) % 2
    recorder = SpectralRecorder(model, groups=["a", "b"])
    _step(recorder, model, inputs, labels)
    recorder.end_epoch(loss=1.0)
    parts = group_sums(sample_gradients(model, "0.weight", inputs, _losses), labels.tolist(), 2)
    norms = [float(part.norm()) for part in parts]
    assert recorder.table["layers/0/cosine"][0, 1, 2] == pytest.approx(
        float((parts[1] * parts[2]).sum()) / norms[1] / norms[2]
    )
    assert recorder.table["layers/0/cancellation"][0] == pytest.approx(norms[0] / (norms[1] + norms[2]))
    with torch.no_grad():
        losses = _losses(model, inputs)
    expected = [losses.mean(), losses[labels == 0].mean(), losses[labels == 1].mean()]
    assert recorder.table["groups/loss"][0].tolist() == pytest.approx([float(value) for value in expected])


def test_cancellation_counts_the_samples_of_no_group_as_one_part():
    """Without them the parts would not add up to the whole, which could then exceed them all together."""
    model, inputs = _model(torch.float64), torch.randn(10, 6, dtype=torch.float64)
    labels = [0, 1, *[-1] * 8]
    recorder = SpectralRecorder(model, groups=["a", "b"])
    _step(recorder, model, inputs, labels)
    recorder.end_epoch()
    per_sample = sample_gradients(model, "0.weight", inputs, _losses)
    whole, *parts = group_sums(per_sample, labels, 2)
    norms = [float(part.norm()) for part in (*parts, per_sample[2:].sum(0))]
    assert float(whole.norm()) > norms[0] + norms[1]
    assert recorder.table["layers/0/cancellation"][0] == pytest.approx(float(whole.norm()) / sum(norms))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_weight_scales_a_group_to_its_mean_gradient(reduction):
    """Over batches of unequal size, whichever way the loss is reduced: the sum over samples of ∇ / n of its group."""
    model, inputs = _model(torch.float64), torch.randn(8, 6, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 0, 1, 0, -1])
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction=reduction)
    total, weight = 0.0, 0.0
    for part in (slice(0, 3), slice(3, 8)):
        with recorder.batch(labels[part]):
            getattr(_losses(model, inputs[part]), reduction)().backward()
        of_sum = sample_gradients(model, "0.weight", inputs[part], _losses) * len(inputs[part])
        share = 1 / len(inputs[part]) if reduction == "mean" else 1.0
        total = total + share * of_sum[labels[part] == 0].sum(0)
        weight += share * int((labels[part] == 0).sum())
    recorder.end_epoch()
    scaled = recorder.spectra.scaled("0").sel(group="a").values[0]
    assert abs(scaled - full_spectrum(total / weight)).max() < 1e-12


def _trained(record):
    model, inputs = _model(), torch.randn(30, 6, generator=torch.Generator().manual_seed(5))
    model = nn.Sequential(model, nn.Dropout(0.3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    torch.manual_seed(7)
    recorder = (
        SpectralRecorder(model, groups=["a", "b"], statistics=("gradient", "activation", "adjoint")) if record else None
    )
    losses = []
    for _ in range(50):
        if recorder:
            with recorder.batch(torch.arange(30) % 2):
                loss = _losses(model, inputs).mean()
                loss.backward()
            recorder.end_epoch(loss=loss.item())
        else:
            loss = _losses(model, inputs).mean()
            loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict(), torch.get_rng_state(), losses


def test_training_is_the_same_to_the_bit_with_and_without_a_recorder():
    weights, random_state, losses = _trained(record=False)
    recorded_weights, recorded_random_state, recorded_losses = _trained(record=True)
    assert all(torch.equal(weights[name], recorded_weights[name]) for name in weights)
    assert torch.equal(random_state, recorded_random_state)
    assert losses == recorded_losses


@pytest.mark.parametrize("epochs", [0, 200])
def test_what_lies_above_the_noise_floor_is_there_in_float64_too(epochs):
    """The floor, checked where gradients are large and where they nearly cancel."""
    torch.manual_seed(3)
    model, inputs = _model(), torch.randn(40, 3) @ torch.randn(3, 6)
    labels = torch.arange(40) % 2
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(epochs):
        optimizer.zero_grad()
        _losses(model, inputs).mean().backward()
        optimizer.step()
    precise = _model(torch.float64)
    precise.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    taken = []
    for network, samples in ((model, inputs), (precise, inputs.double())):
        recorder = SpectralRecorder(network, groups=["a", "b"])
        _step(recorder, network, samples, labels)
        recorder.end_epoch()
        taken.append(recorder.table)
    for layer in ("0", "2"):
        single, double = (table[f"layers/{layer}/gradient"][0] for table in taken)
        floor = taken[0][f"layers/{layer}/floor/gradient"][0][:, None]
        assert (abs(single - double) <= floor).all()


def test_epochs_that_are_not_due_are_free_and_the_last_is_always_taken():
    model = _model()
    recorder = SpectralRecorder(model, groups=["a"], every=3, epochs=6)
    for _ in range(6):
        _step(recorder, model, torch.randn(4, 6), torch.zeros(4, dtype=torch.long))
        recorder.end_epoch(loss=1.0)
    assert recorder.table.epochs == [0, 3, 5]
    assert recorder.table["training/loss"].tolist() == [1.0] * 6


def test_margins_are_recorded_beside_their_groups():
    model, inputs = _model(torch.float64), torch.randn(8, 6, dtype=torch.float64)
    recorder = SpectralRecorder(model, groups=["SZ/M", "SZ/F", "HC"], margins={"SZ": ["SZ/M", "SZ/F"]})
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    _step(recorder, model, inputs, labels)
    recorder.end_epoch()
    per_sample = sample_gradients(model, "0.weight", inputs, _losses)
    assert recorder.grouping.names == ("all", "SZ/M", "SZ/F", "HC", "SZ")
    assert abs(recorder.table["layers/0/gradient"][0, 4] - full_spectrum(per_sample[:5].sum(0))).max() < 1e-12


def test_passes_without_gradient_or_backward_are_ignored():
    model, inputs = _model(), torch.randn(4, 6)
    recorder = SpectralRecorder(model, groups=["a"])
    labels = torch.zeros(4, dtype=torch.long)
    with recorder.batch(labels):
        with torch.no_grad():
            model(torch.randn(9, 6))
        model.eval()
        model(torch.randn(3, 6))
        model.train()
        _losses(model, inputs).mean().backward()
    model(torch.randn(5, 6))
    recorder.end_epoch()
    assert recorder.table["layers/0/rows"].tolist() == [[4, 4]]


def test_no_hook_is_left_after_a_batch_an_exception_or_close():
    model = _model()

    def hooks():
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())

    recorder = SpectralRecorder(model, groups=["a"])
    _step(recorder, model, torch.randn(4, 6), torch.zeros(4, dtype=torch.long))
    assert hooks() == 0
    with pytest.raises(RuntimeError, match="own"), recorder.batch(torch.zeros(4, dtype=torch.long)):
        model(torch.randn(4, 6))
        raise RuntimeError("own")
    assert hooks() == 0
    recorder.close()
    with pytest.raises(AutoSpecError, match="closed"):
        recorder.end_epoch()


def test_nan_is_stored_as_nan_with_one_warning_and_the_run_goes_on():
    model = _model()
    recorder = SpectralRecorder(model, groups=["a", "b"], layers=["0"])
    inputs = torch.randn(4, 6)
    inputs[0] = float("nan")
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _step(recorder, model, inputs, torch.tensor([0, 0, 1, 1]))
            recorder.end_epoch()
    assert not caught  # the second time
    gradient = recorder.table["layers/0/gradient"]
    assert np.isnan(gradient[:, :2]).all()
    assert np.isfinite(gradient[:, 2]).all()


def test_nan_warning_names_the_layer():
    model = _model()
    recorder = SpectralRecorder(model, groups=["a"], layers=["2"])
    _step(recorder, model, torch.full((2, 6), float("inf")), torch.tensor([0, 0]))
    with pytest.warns(AutoSpecWarning, match="layer '2': NaN or infinity in its gradient at epoch 0"):
        recorder.end_epoch()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 2, 0]), r"group label 2 is outside the 2 groups \(a, b\); allowed are 0 to 1"),
        (torch.tensor([0, -2, 1, 0]), "group label -2 is outside"),
        (torch.tensor([0, 1]), "layer '2' saw a batch of 4 samples, but 2 group labels"),
        (["HC", "SZ", "HC", "HC"], r"an index into groups for each sample \(a = 0, b = 1; -1 for none\)"),
        ([[0, 1], [0]], "group labels must be integers, an index into groups"),
        (torch.zeros(4), "integers, not .* of torch.float32"),
        (torch.zeros(4, 1, dtype=torch.long), r"\(batch,\) tensor of integers"),
        (torch.tensor([0, 1, 0, 1], device="meta"), "layer '0' is on cpu, the group labels on meta"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    model = _model()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with pytest.raises(AutoSpecError, match=message):
        _step(recorder, model, torch.randn(4, 6), labels)


def test_use_out_of_order_is_an_error_that_says_so():
    model = _model()
    recorder = SpectralRecorder(model, groups=["a"])
    labels = torch.zeros(4, dtype=torch.long)
    with pytest.raises(AutoSpecError, match="without a backward pass"), recorder.batch(labels):
        model(torch.randn(4, 6))
    with pytest.raises(AutoSpecError, match="epoch 0 ended without a recorder.batch"):
        recorder.end_epoch()
    with recorder.batch(labels):
        late = _losses(model, torch.randn(4, 6)).mean()
        _losses(model, torch.randn(4, 6)).mean().backward()
    with pytest.raises(AutoSpecError, match=r"layer '2': backward ran outside the recorder.batch"):
        late.backward()
    with pytest.raises(AutoSpecError, match="one batch at a time"), recorder.batch(labels), recorder.batch(labels):
        pass


def test_an_activation_changed_in_place_is_an_error():
    model, inputs = nn.ModuleDict({"layer": nn.Linear(3, 3)}), torch.randn(2, 3)
    recorder = SpectralRecorder(model, groups=["a"])
    message = "layer 'layer': its input was changed in place before backward"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(torch.zeros(2, dtype=torch.long)):
        out = model["layer"](inputs)
        inputs.add_(1)
        out.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": []}, "at least one group name"),
        ({"groups": "SZ"}, "a list of at least one"),
        ({"groups": ["a", "a"]}, "'a' is not a distinct name"),
        ({"groups": ["all"]}, "reserved"),
        ({"groups": ["a"], "margins": {"m": ["b"]}}, "'m' names 'b', which is no group"),
        ({"groups": ["a", "b"], "margins": {"m": "ab"}}, "margins: 'm': 'ab' must be a list of at least one group"),
        ({"groups": ["a"], "margins": {"m": []}}, r"'m': \[\] must be a list of at least one group"),
        ({"groups": ["a"], "group_sizes": [3]}, "group_sizes has 1 numbers, but there are 2 groups to report: all, a"),
        ({"groups": ["a"], "leading": 0}, "leading=0: must be 1 or more"),
        ({"groups": ["a"], "check_every": 2}, "check_every=2: is for every engine but 'hooks'"),
        ({"groups": ["a"], "engine": "per_group", "check_every": 0}, "check_every=0: must be 1 or more"),
        (
            {"groups": ["a"], "statistics": ["gradients"]},
            "unknown gradients; allowed are gradient, activation, adjoint",
        ),
        ({"groups": ["a"], "statistics": []}, r"statistics=\[\]: must be one or more of gradient, activation"),
        ({"groups": ["a"], "every": 0}, "every=0: must be 1 or more"),
        ({"groups": ["a"], "reduction": "max"}, "allowed are mean, sum"),
        (
            {"groups": ["a"], "layers": ["decoder.*"]},
            r"no trained weight matrix is named like 'decoder.\*'; there are 0, 2",
        ),
        ({"groups": ["a"], "layers": ["!typo.*"]}, r"nothing to leave out is named like 'typo.\*'; there are 0, 2"),
        ({"groups": ["a"], "layers": ["!*"]}, "the model has no trained weight matrix to watch"),
        ({"groups": ["a"], "layers": []}, r"layers=\[\] names nothing"),
        ({"groups": ["a"], "layers": [3]}, "layers: 3 is neither a name pattern nor a module type"),
        ({"groups": ["a"], "layers": "0"}, "must be a list of patterns"),
        ({"groups": ["a"], "layers": [nn.Conv1d]}, "no trained Conv1d"),
        ({"groups": ["a"], "path": "/nowhere/at/all/spectra.h5"}, "there is no folder"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(AutoSpecError, match=message):
        SpectralRecorder(_model(), **arguments)


ENGINES = pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])


@ENGINES
def test_layers_are_chosen_by_pattern_and_type(engine):
    model = nn.ModuleDict({"encoder": nn.Linear(2, 3), "decoder": nn.Linear(3, 2)})
    assert _recorded(model, ["enc*"], engine) == ["encoder"]
    assert _recorded(model, ["!enc*"], engine) == ["decoder"]
    assert _recorded(model, [nn.Linear, "!decoder"], engine) == ["encoder"]
    with pytest.raises(AutoSpecError, match="no trained Conv1d"):
        _recorded(model, [nn.Conv1d], engine)
    model["encoder"].requires_grad_(False)
    assert _recorded(model, ["!encoder"], engine) == ["decoder"]
    with pytest.raises(AutoSpecError, match="no trained weight matrix is named like 'dcoder'; there are .*decoder"):
        _recorded(model, ["dcoder"], engine)
    if engine == "hooks":  # it is watched, and recorded once it trains
        assert _recorded(model, ["enc*", "decoder"], engine) == ["decoder"]


def _recorded(model, selection, engine="hooks"):
    return SpectralRecorder(model, groups=["a"], layers=selection, engine=engine).layers


class OneSided(nn.Module):
    """Weights with a side of 1, and parameters beside them that are rows of tokens or vectors."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.wide, self.norm, self.score = nn.Linear(1, 6), nn.LayerNorm(6), nn.Linear(6, 1)

    def forward(self, x):
        return self.score(self.norm(self.wide(x) + self.token[0]))


@ENGINES
def test_a_weight_with_a_side_of_1_has_one_singular_value_and_a_token_none(engine):
    model, inputs = OneSided().double(), torch.randn(5, 1, dtype=torch.float64)
    assert _recorded(model, None, engine) == ["wide", "score"]
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    with recorder.batch([0, 1, 1, 0, 0]):
        model(inputs).square().mean().backward()
    recorder.end_epoch()
    for name in ("wide", "score"):
        per_sample = sample_gradients(model, f"{name}.weight", inputs, lambda net, x: net(x).square().mean(1))
        expected = [[float(part.norm())] for part in group_sums(per_sample, [0, 1, 1, 0, 0], 2)]
        assert recorder.table[f"layers/{name}/gradient"][0] == pytest.approx(np.array(expected), abs=1e-12)


def test_a_bilinear_layer_with_one_output_has_one_singular_value():
    model, x = nn.Sequential(nn.Linear(2, 2)), torch.randn(3, 2)
    model.add_module("score", nn.Bilinear(2, 2, 1))
    recorder = SpectralRecorder(model, groups=["a"])
    with recorder.batch([0] * 3):
        model.score(model[0](x), x).square().sum().backward()
    recorder.end_epoch()
    assert recorder.table["layers/score/gradient"][0] == pytest.approx(float(model.score.weight.grad.norm()), rel=1e-6)


@ENGINES
def test_a_type_chooses_all_uses_of_a_shared_weight(engine):
    model = nn.ModuleDict({"words": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["words"].weight
    assert _recorded(model, [nn.Linear], engine) == _recorded(model, ["words"], engine) == ["words"]
    if engine == "hooks":
        recorder = SpectralRecorder(model, groups=["a"], layers=[nn.Linear])
        with recorder.batch([0, 0]):
            model["head"](model["words"](torch.tensor([1, 2]))).square().sum().backward()
        recorder.end_epoch()
        expected = full_spectrum(model["words"].weight.grad)
        assert abs(recorder.table["layers/words/gradient"][0, 0] - expected).max() < 1e-5


def test_what_a_compiled_model_cannot_record_is_listed_at_once_with_what_to_do():
    model = nn.Sequential(nn.Linear(2, 2), nn.Bilinear(2, 2, 3), nn.EmbeddingBag(5, 2))
    with pytest.raises(AutoSpecError) as caught:
        SpectralRecorder(torch.compile(model, backend="eager"), groups=["a"])
    message = str(caught.value)
    for text in ("layer '1' (Bilinear)", "layer '2' (EmbeddingBag)", "layers=['!1', '!2']", "before it is compiled"):
        assert text in message
    assert _recorded(torch.compile(model, backend="eager"), ["!1", "!2"]) == ["0"]
    assert _recorded(model, None) == ["0", "1", "2"]


def test_a_subclass_with_another_forward_is_not_mistaken_for_its_parent():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Doubled(6, 6))
    recorder = SpectralRecorder(model, groups=["a"])
    _step(recorder, model, torch.randn(5, 6), torch.zeros(5, dtype=torch.long))
    recorder.end_epoch()
    assert abs(recorder.table["layers/0/gradient"][0, 0] - full_spectrum(model[0].weight.grad)).max() < 1e-6


def test_a_root_layer_and_wrapped_names():
    assert _recorded(nn.Linear(2, 3), None) == ["weight"]
    assert _recorded(nn.DataParallel(nn.Sequential(nn.Linear(2, 3))), None) == ["0"]


def test_file_is_written_and_an_existing_one_is_safe(tmp_path):
    path = tmp_path / "spectra.h5"
    with SpectralRecorder(_model(), path, groups=["a"]) as recorder:
        model = _model()
        del model
    with pytest.raises(AutoSpecError, match="exists; pass resume=True .* or overwrite=True"):
        SpectralRecorder(_model(), path, groups=["a"])
    with pytest.raises(AutoSpecError, match="other groups or layers"):
        SpectralRecorder(_model(), path, groups=["b"], resume=True)
    assert recorder.path == path


def _epochs(recorder, model, optimizer, until):
    inputs = torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    while recorder.epoch < until:
        optimizer.zero_grad()
        _step(recorder, model, inputs, torch.arange(6) % 2)
        optimizer.step()
        recorder.end_epoch(loss=0.5)


@pytest.mark.parametrize("periodic", [True, False])
def test_the_file_is_written_every_so_often_unless_checkpoints_do_it(tmp_path, monkeypatch, periodic):
    minutes = iter(range(0, 10_000, 60))
    monkeypatch.setattr("autospec.store.file.time.monotonic", lambda: next(minutes))
    path, model = tmp_path / "spectra.h5", _model()
    recorder = SpectralRecorder(model, path, groups=["a", "b"], periodic=periodic)
    _step(recorder, model, torch.randn(4, 6), [0, 1, 0, 1])
    recorder.end_epoch()
    assert path.exists() is periodic
    recorder.state_dict()
    assert path.exists()
    recorder.close()


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_checkpoint_goes_on_to_the_same_numbers(tmp_path, on_disk):
    paths = [tmp_path / "one.h5", tmp_path / "two.h5"] if on_disk else [None, None]
    model = _model()
    optimizer = torch.optim.Adam(model.parameters())
    undisturbed = SpectralRecorder(model, paths[0], groups=["a", "b"])
    _epochs(undisturbed, model, optimizer, 6)

    model = _model()
    optimizer = torch.optim.Adam(model.parameters())
    first = SpectralRecorder(model, paths[1], groups=["a", "b"])
    _epochs(first, model, optimizer, 3)
    state = (model.state_dict(), optimizer.state_dict(), first.state_dict())
    state = torch.load(_saved(tmp_path, state), weights_only=True)
    _epochs(first, model, optimizer, 5)  # lost, as far as the checkpoint is concerned
    first.close()

    model = _model()
    model.load_state_dict(state[0])
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.load_state_dict(state[1])
    second = SpectralRecorder(model, paths[1], groups=["a", "b"], resume=True)
    second.load_state_dict(state[2])
    assert second.epoch == 3
    _epochs(second, model, optimizer, 6)
    for array in undisturbed.table:
        assert np.array_equal(array.values, second.table[array.field.path], equal_nan=True)
    for recorder in (undisturbed, second):
        recorder.close()


def _saved(folder, state):
    torch.save(state, folder / "state.pt")
    return folder / "state.pt"


def test_a_checkpoint_ahead_of_the_file_is_an_error(tmp_path):
    recorder = SpectralRecorder(_model(), groups=["a"])
    with pytest.raises(AutoSpecError, match="ends before epoch 0, but the checkpoint is of epoch 7"):
        recorder.load_state_dict({"epoch": 7, "arrays": {}, "dimensions": {}})


def _steps(recorder, model, optimizer, steps):
    inputs = torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    for step in steps:
        optimizer.zero_grad()
        _step(recorder, model, inputs, torch.arange(6) % 2)
        optimizer.step()
        recorder.record(step=step, loss=float(step))


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_checkpoint_of_steps_goes_on_to_the_same_numbers(tmp_path, on_disk):
    """Steps are labels: of three recorded ones none is lost, and ``every`` counts on where it was."""
    path = tmp_path / "s.h5" if on_disk else None
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    undisturbed = SpectralRecorder(model, groups=["a", "b"], every=2)
    _steps(undisturbed, model, optimizer, [10, 20, 30, 40, 50])

    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = SpectralRecorder(model, path, groups=["a", "b"], every=2)
    _steps(first, model, optimizer, [10, 20, 30])
    weights, state = {name: value.clone() for name, value in model.state_dict().items()}, first.state_dict()
    _steps(first, model, optimizer, [40])
    first.close()
    model.load_state_dict(weights)
    second = SpectralRecorder(model, path, groups=["a", "b"], every=2, resume=True)
    second.load_state_dict(state)
    assert (second.epoch, second.table.training_epochs, second.table.epochs) == (3, [10, 20, 30], [10, 30])
    _steps(second, model, optimizer, [40, 50])
    for array in undisturbed.table:
        assert np.array_equal(array.values, second.table[array.field.path], equal_nan=True)
    assert second.spectra.training["training_loss"].to_dict() == {10: 10.0, 20: 20.0, 30: 30.0, 40: 40.0, 50: 50.0}
    second.end_epoch()  # without a number, it comes next
    assert second.table.training_epochs[-1] == 51
    second.close()


def test_steps_instead_of_epochs():
    model = _model()
    recorder = SpectralRecorder(model, groups=["a"])
    for step in (10, 20):
        _step(recorder, model, torch.randn(4, 6), torch.zeros(4, dtype=torch.long))
        recorder.record(step=step, loss=1.0)
    assert recorder.table.epochs == [10, 20]
    with pytest.raises(AutoSpecError, match="step=20 comes after 20"):
        recorder.record(step=20)


def test_a_rule_of_ones_own():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 3 * nn.functional.linear(x, self.weight)

    @autospec.register_rule(Scaled)
    def scaled(layer, call):
        return {"weight": autospec.GradientFactors(call.activation, 3 * call.adjoint)}

    model = nn.Sequential(Scaled(6, 6))
    recorder = SpectralRecorder(model, groups=["a"])
    _step(recorder, model, torch.randn(5, 6), torch.zeros(5, dtype=torch.long))
    recorder.end_epoch()
    assert abs(recorder.table["layers/0/gradient"][0, 0] - full_spectrum(model[0].weight.grad)).max() < 1e-6


def test_a_batch_that_raises_after_its_backward_spoils_the_epoch_and_rewinding_mends_it():
    model, labels = _model(), torch.zeros(4, dtype=torch.long)
    recorder = SpectralRecorder(model, groups=["a"])
    with pytest.raises(RuntimeError, match="own"), recorder.batch(labels):
        _losses(model, torch.randn(4, 6)).mean().backward()
        raise RuntimeError("own")
    with pytest.raises(AutoSpecError, match="spoilt; go on from the last epoch with recorder.rewind"):
        _step(recorder, model, torch.randn(4, 6), labels)
    recorder.rewind(recorder.epoch)
    _step(recorder, model, torch.randn(4, 6), labels)
    recorder.end_epoch()
    assert recorder.table["layers/0/rows"].tolist() == [[4, 4]]


def test_spectra_in_memory_are_labelled_like_those_of_a_file():
    model = _model()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    _step(recorder, model, torch.randn(4, 6), torch.tensor([0, 1, 0, 1]))
    recorder.end_epoch(loss=0.5)
    spectra = recorder.spectra
    assert spectra["0"]["gradient"].dims == ("epoch", "group", "index")
    assert spectra.to_frame()["scaled"].notna().all()
    assert repr(spectra).startswith("Spectra: in memory")
    with pytest.raises(AutoSpecError, match="in memory has no layer 'x'"):
        spectra["x"]


def test_statistics_of_unequal_width_do_not_pad_one_another():
    model = _model()
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=("gradient", "activation", "adjoint"))
    _step(recorder, model, torch.randn(4, 6), torch.tensor([0, 1, 0, 1]))
    recorder.end_epoch()
    layer = recorder.spectra["0"]
    assert [layer[name].shape[-1] for name in ("gradient", "activation", "adjoint")] == [4, 6, 4]
    frames = {name: recorder.spectra.to_frame(name) for name in ("gradient", "activation", "adjoint")}
    assert [frame[frame.layer == "0"]["index"].max() for frame in frames.values()] == [4, 6, 4]
    assert all(frame["value"].notna().all() for frame in frames.values())


def test_a_lazy_layer_is_recorded_after_its_first_call():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(AutoSpecError, match=r"layer '0' \(LazyLinear\) has no weights before its first call; run"):
        SpectralRecorder(model, groups=["a"])
    model(torch.randn(2, 4))
    assert _recorded(model, None) == ["0"]


def test_norms_have_no_spectrum_whatever_their_dimension():
    model = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.LayerNorm([2, 2]), nn.RMSNorm([2, 2]))
    assert _recorded(model, None) == ["0"]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            lambda call: {"w": autospec.GradientFactors(call.activation, call.adjoint)},
            "explains 'weight', but returned 'w'",
        ),
        (lambda call: {}, "explains 'weight', but returned nothing"),
        (lambda call: None, "returned a NoneType, not a dict of GradientFactors"),
        (
            lambda call: {"weight": (call.activation, call.adjoint)},
            "returned a Tensor for 'weight', not autospec.GradientFact",
        ),
        (
            lambda call: {"weight": autospec.GradientFactors(call.adjoint, call.activation)},
            "rows 0 to 40 and 30 columns, but the weight's matrix is 30 x 40; GradientFactors takes the activation",
        ),
    ],
)
def test_a_rule_of_ones_own_that_returns_something_else_is_an_error_that_names_the_layer(returned, message):
    class Own(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight)

    autospec.register_rule(Own)(lambda layer, call: returned(call))
    model = nn.Sequential(Own(40, 30))
    for n in (6, 60):
        recorder = SpectralRecorder(model, groups=["a"])
        with pytest.raises(AutoSpecError, match=rf"layer '0' \(Own\): .*{message}"), recorder.batch([0] * n):
            model(torch.randn(n, 40)).square().sum().backward()


def test_a_rule_of_ones_own_for_a_weight_that_is_not_there():
    class Misspelt(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight)

    autospec.register_rule(Misspelt, weights=("wieght",))(lambda layer, call: {})
    with pytest.raises(AutoSpecError, match="layer '0': the rule of Misspelt explains 'wieght', .* weight, bias"):
        SpectralRecorder(nn.Sequential(Misspelt(4, 3)), groups=["a"])
