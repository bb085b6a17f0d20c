"""Engines by layer: modules without a rule run again for each group, beside those that hooks listen to."""

import copy

import pytest
import torch
import torch.nn.functional as F
from references import full_spectrum
from torch import nn

from autospec import AutoSpecError, SpectralRecorder

N = 8
LABELS = torch.tensor([0, 0, 1, -1, 1, 0, 1, 0])


class Mapped(nn.Module):
    """A layer whose products a function transform hides."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width) / width)

    def forward(self, x):
        return torch.vmap(lambda row: (x * row).sum(-1), out_dims=-1)(self.weight) + x * self.weight.square().sum()


class Net(nn.Module):
    def __init__(self, middle, width=5):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, width), middle, nn.Linear(width, 3)

    def forward(self, x):
        return self.last(self.middle(self.first(x).tanh()).tanh())


class Tokens(nn.Module):
    """Looks numbers up in a table of its own, and mixes them by a weight that no function shows."""

    def __init__(self):
        super().__init__()
        self.table, self.mixer = nn.Parameter(torch.randn(6, 5)), Mapped(5)

    def forward(self, x):
        return self.mixer(x + F.one_hot((x[:, 0] > 0).long(), 6).to(x) @ self.table)


class Parts(nn.Module):
    """Holds its weight in a list, which is never called."""

    def __init__(self):
        super().__init__()
        self.inner = Mapped(5)
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(5, 5))])

    def forward(self, x):
        return torch.vmap(lambda row: (x * row).sum(-1), out_dims=-1)(self.weights[0]) + self.inner(x)


class Windows(nn.Module):
    """Every sample has two rows in the first dimension of its inner layer."""

    def __init__(self):
        super().__init__()
        self.inner = Mapped(5)

    def forward(self, x):
        rows = torch.stack([x, 2 * x], 1).flatten(0, 1)
        return self.inner(rows).unflatten(0, (-1, 2)).sum(1)


class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Mapped(5)

    def forward(self, x):
        order = x[:, 0].argsort()
        return self.inner(x[order])[order.argsort()]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Mapped(5)

    def forward(self, x):
        return self.inner(self.inner(x).tanh())


def _losses(output):
    return (output.sin() + output.square() / 2).sum(1)


def _record(model, x, engine, **options):
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", engine=engine, **options)
    with recorder.batch(LABELS):
        _losses(model(x)).sum().backward()
    recorder.end_epoch()
    return recorder


def _assert_exact(recorder, model, x, skip=()):
    weights = {name.removesuffix(".weight"): name for name, _ in model.named_parameters()}
    for group in (0, 1):
        alone = copy.deepcopy(model)
        alone.zero_grad()
        _losses(alone(x))[group == LABELS].sum().backward()
        for layer in recorder.layers:
            expected = full_spectrum(alone.get_parameter(weights[layer]).grad.flatten(1))
            found = recorder.table[f"layers/{layer}/gradient"][-1, 1 + group]
            assert layer in skip or abs(found - expected).max() < 1e-10, layer


MODELS = {
    "a transform": (lambda: Net(Mapped(5)), "middle"),
    "a look-up": (lambda: Net(Tokens()), "middle*"),
    "a list of weights": (lambda: Net(Parts()), "middle*"),
    "windows": (lambda: Net(Windows()), "middle*"),
    "another order": (lambda: Net(Sorted()), "middle*"),
    "two calls": (lambda: Net(Twice()), "middle*"),
    "a whole network": (lambda: Net(Mapped(5)), "*"),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_of_both_engines_stand_in_one_file_and_are_exact(name):
    make, pattern = MODELS[name]
    torch.manual_seed(1)
    model, x = make().double(), torch.randn(N, 4, dtype=torch.float64)
    statistics = ("gradient", "activation", "adjoint")
    recorder = _record(model, x, {pattern: "per_group"}, statistics=statistics)
    for _ in range(2):
        with recorder.batch(LABELS):
            _losses(model(x)).sum().backward()
        recorder.end_epoch()
        _assert_exact(recorder, model, x)
    paths = {array.field.path for array in recorder.table}
    has_rows = {layer for layer in recorder.layers if f"layers/{layer}/activation" in paths}
    assert has_rows == (set() if pattern == "*" else {"first", "last"})


def test_hooks_alone_say_how_such_a_layer_is_had():
    model, x = Net(Mapped(5)), torch.randn(N, 4)
    with pytest.raises(AutoSpecError, match=r"engine=\{'middle': 'per_group', '\*': 'hooks'\}"):
        _record(model, x, "hooks")


def test_what_hooks_have_of_a_layer_is_what_running_it_again_has():
    torch.manual_seed(2)
    norm = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))
    model, x = Net(norm).double(), torch.randn(N, 4, dtype=torch.float64)
    buffers = copy.deepcopy(model.state_dict())
    expected = _record(model, x, "hooks")
    model.load_state_dict(buffers)
    found = _record(model, x, {"first": "per_group", "middle.0": "per_group"})
    assert found.layers == expected.layers
    for layer in expected.layers:
        path = f"layers/{layer}/gradient"
        assert abs(found.table[path] - expected.table[path]).max() < 1e-10, layer


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.norm = Mapped(5), nn.BatchNorm1d(5)
        self.weight = nn.Parameter(torch.randn(5, 5))

    def forward(self, x):
        return self.norm(self.inner(x) @ self.weight)


@pytest.mark.parametrize("floor", ["formula", "measured"])
def test_a_part_in_which_samples_depend_on_one_another_is_refused(floor):
    model, x = Net(Normed()), torch.randn(N, 4)
    message = "a Normed gives one group's samples other outputs alone than in the batch"
    with pytest.raises(AutoSpecError, match=message):
        _record(model, x, {"middle*": "per_group"}, floor=floor)


def _trained(engine):
    torch.manual_seed(3)
    middle = nn.Sequential(Mapped(5), nn.Dropout(0.4), nn.BatchNorm1d(5))
    model, x = Net(middle), torch.randn(N, 4)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine) if engine else None
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        if recorder:
            with recorder.batch(LABELS):
                _losses(model(x)).mean().backward()
            recorder.end_epoch()
        else:
            _losses(model(x)).mean().backward()
        optimizer.step()
    return model.state_dict(), torch.get_rng_state()


def test_training_is_the_same_to_the_bit():
    plain, recorded = _trained(None), _trained({"middle.0": "per_group"})
    assert all(torch.equal(value, recorded[0][name]) for name, value in plain[0].items())
    assert torch.equal(plain[1], recorded[1])


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.dropout = Mapped(5), nn.Dropout(0.5)
        self.weight = nn.Parameter(torch.randn(5, 5))

    def forward(self, x):
        return self.dropout(self.inner(self.dropout(x))) @ self.weight


def test_dropout_inside_is_that_of_the_call():
    torch.manual_seed(4)
    model, x = Net(Dropping()).double(), torch.randn(N, 4, dtype=torch.float64)
    recorder = _record(model, x, {"middle*": "per_group"})
    whole = {name: full_spectrum(weight.grad) for name, weight in model.named_parameters() if weight.dim() > 1}
    for name, expected in whole.items():
        found = recorder.table[f"layers/{name.removesuffix('.weight')}/gradient"][0, 0]
        assert abs(found - expected).max() < 1e-10


def test_float32_has_a_measured_floor():
    model, x = Net(Mapped(5)), torch.randn(N, 4)
    recorder = _record(model, x, {"middle": "per_group"})
    assert (recorder.table["layers/middle/floor/measured"] == 1).all()
    floor, values = (recorder.table[f"layers/middle/{name}"][0, 0] for name in ("floor/gradient", "gradient"))
    assert 0 < floor < 1e-5 * values[0]


def test_the_table_shows_the_engine_by_layer():
    model, x = Net(Mapped(5)), torch.randn(N, 4)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine={"middle": "per_group"})
    table = recorder.check(x)
    assert table["middle"].recorded == "by group (gradients), engine per_group"
    assert table["first"].recorded == "by group"
    assert {row.traced for row in table if row.recorded} == {"sample first"}


def test_the_file_says_the_engine_by_layer(tmp_path):
    import h5py

    model, x = Net(Mapped(5)), torch.randn(N, 4)
    _record(model, x, {"middle": "per_group"}, path=tmp_path / "spectra.h5").close()
    with h5py.File(tmp_path / "spectra.h5") as file:
        assert file.attrs["engine"] == "hooks"
        assert file["layers/middle"].attrs["engine"] == "per_group"
        assert "engine" not in file["layers/first"].attrs


def _computed():
    model = Net(nn.Linear(5, 5))
    nn.utils.parametrizations.weight_norm(model.middle)
    return model


class Reading(nn.Module):
    """Gives two tensors of unlike first dimensions, both of which the loss sees."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))

    def forward(self, x):
        hidden = x @ self.weight
        return hidden, hidden.T


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Reading()

    def forward(self, x):
        one, other = self.inner(x)
        return one + other.T


REFUSED = {
    "another engine": (lambda: Net(Mapped(5)), {"middle": "fused"}, "by layer there are 'hooks' and 'per_group'"),
    "no such engine": (lambda: Net(Mapped(5)), {"middle": "hook"}, "by layer there are 'hooks' and 'per_group'"),
    "no such layer": (lambda: Net(Mapped(5)), {"mid": "per_group"}, "no weight matrix is named like 'mid'; there are"),
    "a computed weight": (_computed, {"middle": "per_group"}, "its weight is computed from parameters"),
    "other dimensions": (lambda: Net(Both()), {"middle*": "per_group"}, "must have the samples for its first"),
    "a compiled model": (
        lambda: torch.compile(Net(Mapped(5)), backend="eager"),
        {"middle": "per_group"},
        "does not take compiled models",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_mixed_is_refused_in_one_line(name):
    make, engine, message = REFUSED[name]
    with pytest.raises(AutoSpecError, match=message):
        _record(make(), torch.randn(N, 4), engine)


def test_permutations_need_hooks_alone():
    with pytest.raises(AutoSpecError, match="permutations=99 and engine=.* do not go together"):
        SpectralRecorder(Net(Mapped(5)), groups=["a", "b"], engine={"middle": "per_group"}, permutations=99)
