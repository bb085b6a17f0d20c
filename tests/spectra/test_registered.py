"""Statistics registered from outside: what they see, what they may return, and what is said of mistakes."""

import pytest
import torch
from torch import nn

from autospec import AutoSpecError, AutoSpecWarning, SpectralRecorder, register_statistic
from autospec.spectra.registered import REGISTERED

GROUPS = ["a", "b"]
LABELS = torch.tensor([0, 0, 1, 1, 1, -1])


@pytest.fixture(autouse=True)
def _own_statistics_only():
    before = dict(REGISTERED)
    yield
    REGISTERED.clear()
    REGISTERED.update(before)


def recorded(statistics, model=None, inputs=None, epochs=1, path=None):
    torch.manual_seed(1)
    model = model or nn.Linear(4, 3)
    inputs = torch.randn(6, 4) if inputs is None else inputs
    recorder = SpectralRecorder(model, path, groups=GROUPS, statistics=statistics)
    for _ in range(epochs):
        with recorder.batch(LABELS):
            model(inputs).square().sum().backward()
        model.zero_grad()
        recorder.end_epoch()
    recorder.close()
    return recorder.spectra


def test_a_statistic_of_ones_own_stands_in_the_file_beside_the_others(tmp_path):
    import autospec

    register_statistic("condition", lambda record: record.spectra("gradient")[:, 0] / record.spectra("gradient")[:, -1])
    recorded(["gradient", "condition"], epochs=2, path=tmp_path / "spectra.h5")
    layer = autospec.open_spectra(tmp_path / "spectra.h5")["weight"]
    expected = layer.gradient.isel(index=0) / layer.gradient.isel(index=-1)
    assert layer.condition.dims == ("epoch", "group")
    assert layer.condition.values == pytest.approx(expected.values)
    assert layer.condition.sel(group="a").shape == (2,)


def test_a_record_is_what_its_names_say():
    seen = {}

    def look(record):
        seen.update({name: getattr(record, name) for name in ("groups", "gradients", "row_sums", "rows", "row_group")})
        seen.update({name: record.gram(name) for name in ("activation", "adjoint")})
        seen["counts"] = record.row_counts
        return 1.0

    needs = ["gradient", "activation", "adjoint", "row_sums", "rows"]
    register_statistic("look", look, dimensions=[], needs=needs)
    model, inputs = nn.Linear(4, 3).double(), torch.randn(6, 4, dtype=torch.float64)
    with torch.no_grad():
        adjoints = 2 * model(inputs)
    recorded(["look"], model, inputs)
    assert seen["groups"] == ("all", "a", "b")
    for group, members in enumerate((slice(None), LABELS == 0, LABELS == 1)):
        rows, back = inputs[members], adjoints[members]
        torch.testing.assert_close(seen["gradients"][group], back.mT @ rows)
        torch.testing.assert_close(seen["activation"][group], rows.mT @ rows)
        torch.testing.assert_close(seen["adjoint"][group], back.mT @ back)
        torch.testing.assert_close(seen["row_sums"][group], rows.sum(0))
    assert seen["counts"].tolist() == [6, 2, 3]
    torch.testing.assert_close(seen["rows"], inputs)
    assert seen["row_group"].tolist() == LABELS.tolist()


def test_single_numbers_and_axes_of_ones_own():
    register_statistic("one", lambda record: 1.5, dimensions=[])
    register_statistic("columns", lambda record: record.gradients[0].norm(dim=0), dimensions=["column"])
    layer = recorded(["one", "columns"])["weight"]
    assert layer.one.values.tolist() == [1.5]
    assert layer["columns"].dims == ("epoch", "column")
    assert layer["columns"].shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Big", {}, "'Big' cannot name a statistic: small letters, digits and underscores, a letter first"),
        ("a/b", {}, "'a/b' cannot name a statistic"),
        ("gradient", {}, "there is a statistic 'gradient' already; choose another name"),
        ("cosine", {}, "there is a statistic 'cosine' already; choose another name"),
        ("noise_scale", {}, "there is a statistic 'noise_scale' already"),
        ("mine", {"needs": "gradient"}, r"needs='gradient': a list of names is needed, such as \['gradient'\]"),
        ("mine", {"needs": ["hessian"]}, "statistic 'mine' needs 'hessian'; what can be had is gradient, activation,"),
        ("mine", {"dimensions": ["epoch"]}, "statistic 'mine': dimensions=.*'epoch' not among them"),
        ("mine", {"function": 3}, "statistic 'mine': 3 is no function of a layer's record"),
    ],
)
def test_a_registration_that_cannot_be_is_one_line(name, arguments, message):
    import autospec.spectra.measures  # noqa: F401 (registers noise_scale)

    with pytest.raises(AutoSpecError, match=message):
        register_statistic(name, arguments.pop("function", lambda record: 1.0), **arguments)


def test_the_same_registration_twice_is_one():
    def mine(record):
        return 1.0

    register_statistic("mine", mine, dimensions=[])
    register_statistic("mine", mine, dimensions=[])
    with pytest.raises(AutoSpecError, match="there is a statistic 'mine' already"):
        register_statistic("mine", lambda record: 2.0)


def test_an_unknown_statistic_is_said_with_all_that_can_be_asked_for():
    register_statistic("mine", lambda record: 1.0, dimensions=[])
    with pytest.raises(AutoSpecError, match=r"unknown minne; allowed are gradient, .*noise_scale.*mine"):
        recorded(["minne"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda record: torch.ones(2), r"statistic 'mine' returned the shape \(2,\), .* \('group',\) with 3 groups"),
        (lambda record: 1.0, r"statistic 'mine' returned the shape \(\), which is not that of its dimensions"),
        (lambda record: 1 / 0, "statistic 'mine' raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_that_goes_wrong_is_named(function, message):
    register_statistic("mine", function)
    with pytest.raises(AutoSpecError, match=message):
        recorded(["mine"])


def test_what_a_layer_cannot_tell_is_left_out_by_name():
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, 2))
    with pytest.warns(AutoSpecWarning, match="'0': collapse is left out: its layer does not hand over its rows one by"):
        spectra = recorded(["gradient", "collapse"], model, torch.randn(6, 2, 4))
    assert "collapse" in spectra["2"]
    assert "collapse" not in spectra["0"]


def test_samples_norms_of_a_weight_that_is_used_twice_are_not_told():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    with pytest.warns(AutoSpecWarning, match="noise_scale is left out: the weight is used several times in a batch"):
        spectra = recorded(["gradient", "noise_scale"], Twice())
    assert "noise_scale" not in spectra["layer"]


def test_the_update_of_a_computed_weight_is_left_out():
    model = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    with pytest.warns(AutoSpecWarning, match="weight_update is left out: its module computes the weight from other"):
        recorded(["gradient", "weight_update"], model)


def test_engines_of_gradients_alone_refuse_them():
    with pytest.raises(AutoSpecError, match="engine='fast' knows gradients only"):
        SpectralRecorder(nn.Linear(4, 3), groups=GROUPS, statistics=["gradient", "weight_update"], engine="fast")


def test_one_that_was_not_recorded_is_said_when_it_is_read():
    with pytest.raises(AutoSpecError, match="noise_scale was not recorded in this layer, which has gradient"):
        _ = recorded(["gradient"])["weight"].noise_scale


def test_a_resumed_run_knows_the_weights_of_the_record_before(tmp_path):
    def train(recorder, model, optimizer, epochs):
        inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
        for _ in range(epochs):
            with recorder.batch(LABELS):
                model(inputs).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.end_epoch()

    def begin(path, **arguments):
        torch.manual_seed(1)
        model = nn.Linear(4, 3)
        recorder = SpectralRecorder(
            model, path, groups=GROUPS, statistics=["weight_update"], periodic=False, **arguments
        )
        return model, torch.optim.SGD(model.parameters(), lr=0.1), recorder

    model, optimizer, whole = begin(None)
    train(whole, model, optimizer, 4)
    model, optimizer, first = begin(tmp_path / "spectra.h5")
    train(first, model, optimizer, 2)
    state, weights = first.state_dict(), {name: value.clone() for name, value in model.state_dict().items()}
    first.close()
    model, optimizer, second = begin(tmp_path / "spectra.h5", resume=True)
    model.load_state_dict(weights)
    second.load_state_dict(state)
    train(second, model, optimizer, 2)
    assert (second.spectra["weight"].weight_update.values == whole.spectra["weight"].weight_update.values).all()
