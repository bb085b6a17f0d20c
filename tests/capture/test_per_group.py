import pytest
import torch
from references import full_spectrum, group_sums, sample_gradients
from torch import nn

from autospec import AutoSpecError, SpectralRecorder


class Attending(nn.Module):
    """A transformer layer and a head: no rule is needed for any of it."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True)
        self.scale = nn.Parameter(torch.rand(8, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return {"out": self.head((self.block(x) @ self.scale).mean(1)), "note": "kept"}


def _losses(model, x):
    return model(x)["out"].square().sum(1)


def _taken(model, inputs, labels, engine="per_group", **arguments):
    recorder = SpectralRecorder(model, groups=["a", "b", "c"], engine=engine, **arguments)
    with recorder.batch(labels):
        _losses(model, inputs).mean().backward()
    recorder.end_epoch()
    return recorder


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_any_module_of_independent_samples_without_a_rule(dtype, tolerance):
    model, inputs = Attending().to(dtype), torch.randn(9, 5, 8, dtype=dtype)
    labels = [0, 0, 2, 1, 2, 0, -1, 0, 0]
    recorder = _taken(model, inputs, torch.tensor(labels))
    assert "scale" in recorder._header.layers
    assert "block.self_attn.in_proj_weight" in recorder._header.layers
    for name, parameter in (("scale", "scale"), ("head", "head.weight"), ("block.linear1", "block.linear1.weight")):
        expected = group_sums(sample_gradients(model, parameter, inputs, _losses), labels, 3)
        for values, matrix in zip(recorder.table[f"layers/{name}/gradient"][0], expected, strict=True):
            assert abs(values - full_spectrum(matrix)).max() <= tolerance * max(1.0, float(matrix.norm()))


def test_the_summed_gradient_is_the_unsplit_one_and_nothing_is_left_on_the_model():
    model, inputs = Attending(), torch.randn(8, 5, 8)
    _losses(model, inputs).mean().backward()
    unsplit = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    before = dict(vars(model))
    _taken(model, inputs, torch.arange(8) % 3)
    assert vars(model) == before
    for name, weight in model.named_parameters():
        assert torch.allclose(weight.grad, unsplit[name], atol=1e-6)


def test_the_engines_agree():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6)).double()
    inputs, labels = torch.randn(12, 6, dtype=torch.float64), torch.arange(12) % 3
    tables = []
    for engine in ("hooks", "per_group", "passes"):
        recorder = SpectralRecorder(model, groups=["a", "b", "c"], engine=engine)
        with recorder.batch(labels):
            (model(inputs) - inputs).square().mean().backward()
        recorder.end_epoch()
        tables.append(recorder.table)
    for path in ("layers/0/gradient", "layers/2/gradient", "layers/0/cosine", "layers/2/cancellation", "groups/weight"):
        for table in tables[1:]:
            assert tables[0][path] == pytest.approx(table[path], abs=1e-12)


def test_dropout_does_not_trip_the_check_and_the_random_state_is_the_users():
    model, inputs = Attending(dropout=0.3), torch.randn(8, 5, 8)
    recorder = SpectralRecorder(model, groups=["a"], engine="per_group", check_every=1)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with recorder.batch(torch.zeros(8, dtype=torch.long)):
        _losses(model, inputs).mean().backward()
    with_check = torch.get_rng_state()
    torch.set_rng_state(state)
    _losses(model, inputs).mean().backward()
    assert torch.equal(with_check, torch.get_rng_state())  # one group: as many random numbers as an unsplit pass


class Coupled(nn.Module):
    """Couples the samples inside its forward function, where no module type shows it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        y = self.layer(x)
        return {"out": y - y.mean(0)}


def test_coupling_that_hides_in_a_forward_function_is_found():
    with pytest.raises(AutoSpecError, match=r"the outputs of Coupled .* differ .* use engine='hooks'"):
        _taken(Coupled(), torch.randn(6, 4), torch.arange(6) % 3)


class CoupledGradient(nn.Module):
    """Its outputs do not depend on the other samples, its gradients do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        y = self.layer(x)
        return {"out": y * (1 + y.mean() - y.mean().detach())}


def test_coupling_that_hides_in_a_gradient_is_found():
    with pytest.raises(AutoSpecError, match="layer 'layer' of CoupledGradient .* depend on one another"):
        _taken(CoupledGradient(), torch.randn(6, 4), torch.arange(6) % 3)


def test_what_cannot_be_split_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    recorder = SpectralRecorder(model, groups=["a"], engine="per_group")
    with pytest.raises(AutoSpecError, match=r"module '1' \(BatchNorm1d\) couples .*"), recorder.batch([0, 0, 0]):
        model(torch.randn(3, 4))
    with pytest.raises(AutoSpecError, match="knows gradients only, not statistics=.*adjoint"):
        SpectralRecorder(Attending(), groups=["a"], engine="per_group", statistics=["gradient", "adjoint"])
    with pytest.raises(AutoSpecError, match="engine=turbo: allowed are hooks, fast, per_group, passes, fused"):
        SpectralRecorder(Attending(), groups=["a"], engine="turbo")


def test_passes_without_gradient_run_unsplit():
    model, inputs = Attending(), torch.randn(8, 5, 8)
    recorder = SpectralRecorder(model, groups=["a"], engine="per_group")
    with recorder.batch(torch.zeros(8, dtype=torch.long)):
        with torch.no_grad():
            assert model(torch.randn(3, 5, 8))["out"].shape == (3, 3)
        _losses(model, inputs).mean().backward()
    recorder.end_epoch()
    assert "layers/head/rows" not in recorder.table
    assert recorder.table["layers/head/floor/gradient"].shape == (1, 2)
    frame = recorder.spectra.to_frame()  # although nothing is known of rows
    assert frame["scaled"].tolist() == frame["value"].tolist()  # one group, a weight of 1
    assert set(frame.query("layer == 'head'").rank_bound) == {3}


def test_a_batch_without_a_backward_is_an_error():
    recorder = SpectralRecorder(Attending(), groups=["a"], engine="per_group")
    with pytest.raises(AutoSpecError, match="without a backward pass"), recorder.batch([0, 0]):
        pass


def test_a_forward_that_the_user_put_on_the_model_stays():
    model = nn.Sequential(nn.Linear(4, 3))
    of_class = model.forward
    model.forward = doubled = lambda x: 2 * of_class(x)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine="per_group")
    with recorder.batch([0, 1, 0]):
        model(torch.randn(3, 4)).square().sum().backward()
    assert vars(model)["forward"] is doubled


class Dropping(nn.Module):
    """Dropout by a function, inside a recurrent layer, and by a module that the user keeps switched off."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 40, 2, dropout=0.5, batch_first=True), nn.Linear(40, 30)
        self.off = nn.Dropout(0.5).eval()

    def forward(self, x):
        return {"out": self.off(nn.functional.dropout(self.head(self.rnn(x)[0]), 0.5, self.training)).mean(1)}


def test_the_check_switches_every_dropout_off_and_puts_every_module_back():
    model = Dropping()
    seen = []
    model.head.register_forward_hook(lambda head, inputs, output: seen.append(model.training))
    recorder = _taken(model, torch.randn(6, 5, 4), torch.arange(6) % 3)
    assert recorder.table["layers/head/gradient"].shape == (1, 4, 30)
    # the whole for its state, and twice, which differs; twice and three parts without dropout; those of training
    assert seen == [True] * 3 + [False] * 5 + [True] * 3
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert model.rnn.dropout == 0.5
