"""Weights that only calls of functions explain, and which weights are watched at all."""

import gc
import logging
import weakref

import numpy as np
import pytest
import torch
from cases import Bare
from references import full_spectrum, group_sums, sample_gradients
from torch import nn
from torch.nn import functional

from autospec import AutoSpecError, SpectralRecorder
from autospec.capture.layers import watched_modules
from autospec.capture.weights import left_out

LABELS = [0, 1, 1, 0, 0, 1]
STATISTICS = ["gradient", "activation", "adjoint"]


def losses(model, x):
    return model(x).sin().flatten(1).sum(1)


def recorded(model, x, **options):
    recorder = SpectralRecorder(model, groups=["a", "b"], **options)
    with recorder.batch(LABELS):
        losses(model, x).mean().backward()
    recorder.end_epoch()
    return recorder


def is_exact(recorder, model, x, layer, parameter, epoch=0):
    expected = group_sums(sample_gradients(model, parameter, x, losses), LABELS, 2)
    found = recorder.table[f"layers/{layer}/gradient"][epoch]
    return all(
        abs(values - full_spectrum(matrix)).max() < 1e-12 for values, matrix in zip(found, expected, strict=True)
    )


def test_a_weight_used_in_two_layouts_keeps_the_rows_of_each_apart():
    model = Bare(lambda x, w: functional.linear(functional.linear(x, w).tanh(), w.t()), (4, 5)).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    recorder = recorded(model, x, statistics=STATISTICS)
    assert is_exact(recorder, model, x, "w0", "w0")
    back = "layers/w0/uses/linear_transposed"
    assert recorder.table[f"{back}/activation"].shape == (1, 3, 4)
    hidden = full_spectrum(functional.linear(x, model.w0).tanh().detach())
    assert np.allclose(recorder.table[f"{back}/activation"][0, 0], hidden)
    assert np.allclose(recorder.table["layers/w0/activation"][0, 0], full_spectrum(x))


class TiedByHand(nn.Module):
    """The table comes back as the head's matrix, by a function."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 4)

    def forward(self, indices):
        return functional.linear(self.words(indices).tanh(), self.words.weight)


def test_a_module_whose_weight_a_function_uses_too():
    model, x = TiedByHand().double(), torch.randint(9, (6, 5))
    recorder = recorded(model, x, statistics=STATISTICS)
    assert is_exact(recorder, model, x, "words", "words.weight")
    assert recorder.table["layers/words/activation"].shape == (1, 3, 9)
    assert recorder.table["layers/words/uses/linear/activation"].shape == (1, 3, 4)


def test_the_first_batch_is_looked_at_and_later_ones_where_there_is_a_reason(monkeypatch):
    from autospec.capture import function_calls

    entered = []
    monkeypatch.setattr(function_calls._CallMode, "__enter__", lambda mode: entered.append(mode))  # noqa: PLW0108
    monkeypatch.setattr(function_calls._CallMode, "__exit__", lambda mode, *raised: None)
    model, x = nn.Sequential(nn.Linear(5, 4)), torch.randn(6, 5)
    recorder = SpectralRecorder(model, groups=["a", "b"], floor="formula")
    for _ in range(3):
        with recorder.batch(LABELS):
            losses(model, x).mean().backward()
    assert len(entered) == 1


class TableByNorm(nn.Module):
    """A table that is normalised and goes through a layer for all samples alike, as relative positions do."""

    def __init__(self):
        super().__init__()
        self.table, self.norm, self.turn = nn.Embedding(3, 4), nn.LayerNorm(4), nn.Linear(4, 4, bias=False)

    def forward(self, x):
        return torch.einsum("ntd,sd->nts", x, self.norm(self.table.weight) * 2) + x[..., :3]


def test_a_table_whose_module_is_never_called():
    model, x = TableByNorm().double(), torch.randn(6, 3, 4, dtype=torch.float64)
    recorder = SpectralRecorder(model, groups=["a", "b"], layers=["table"])
    with recorder.batch(LABELS):
        losses(model, x).mean().backward()
    recorder.end_epoch()
    assert is_exact(recorder, model, x, "table", "table.weight")


def test_a_tied_weight_whose_first_module_is_never_called():
    model = nn.ModuleDict({"shared": nn.Embedding(7, 4), "embed_tokens": nn.Embedding(7, 4)})
    model["embed_tokens"].weight = model["shared"].weight
    recorder = SpectralRecorder(model, groups=["a"], statistics=["activation"])
    with recorder.batch([0, 0]):
        model["embed_tokens"](torch.tensor([[1, 2], [1, 3]])).square().sum().backward()
    recorder.end_epoch()
    assert recorder.table["layers/shared/uses/embed_tokens/activation"][0, 0, :3] ** 2 == pytest.approx([2, 1, 1])
    path = "layers/shared/activation"
    assert path not in recorder.table or np.isnan(recorder.table[path]).all()


@pytest.mark.parametrize("kind", ["module", "function"])
def test_a_layer_that_is_frozen_and_trains_later_is_recorded_from_then_on(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(5, 4) if kind == "module" else Bare(functional.linear, (4, 5))
            self.second = nn.Linear(4, 3)

        def forward(self, x):
            return self.second(self.first(x).tanh())

    model, x = Net().double(), torch.randn(6, 5, dtype=torch.float64)
    model.first.requires_grad_(False)
    layer, parameter = ("first", "first.weight") if kind == "module" else ("first.w0", "first.w0")
    recorder = SpectralRecorder(model, groups=["a", "b"])
    assert recorder.layers == ["second"]
    for epoch in range(2):
        if epoch:
            model.first.requires_grad_(True)
        with recorder.batch(LABELS):
            losses(model, x).mean().backward()
        recorder.end_epoch()
    assert recorder.layers == [layer, "second"]
    assert np.isnan(recorder.table[f"layers/{layer}/gradient"][0]).all()
    assert is_exact(recorder, model, x, layer, parameter, epoch=1)
    assert recorder._header.layers[layer]["shape"] == (4, 5)


def test_a_model_in_which_nothing_trains_is_an_error():
    model = nn.Sequential(nn.Linear(5, 4)).requires_grad_(False)
    with pytest.raises(AutoSpecError, match="the model has no trained weight matrix to watch"):
        SpectralRecorder(model, groups=["a"])


@pytest.mark.parametrize("what", ["head", "weight"])
def test_a_replaced_head_is_named_at_the_next_batch(what):
    model = nn.ModuleDict({"body": nn.Linear(5, 4), "head": nn.Linear(4, 3)})
    recorder = SpectralRecorder(model, groups=["a"])
    if what == "head":
        model["head"] = nn.Linear(4, 7)
    else:
        model["head"].weight = nn.Parameter(torch.zeros(3, 4))
    message = "layer 'head': replaced after the recorder was made, .* make a new recorder"
    with pytest.raises(AutoSpecError, match=message), recorder.batch([0]):
        pytest.fail("the batch must not begin")


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: nn.ModuleDict({"module": model})])
def test_a_wrapped_model_is_not_taken_for_a_replaced_one(wrap):
    model = wrap(nn.Sequential(nn.Linear(5, 4)))
    recorder = SpectralRecorder(model, groups=["a"])
    with recorder.batch([0, 0]):
        next(module for module in model.modules() if isinstance(module, nn.Linear))(torch.randn(2, 5)).sum().backward()


def test_complex_weights_are_refused_by_name():
    model = nn.ModuleDict({"filter": Bare(lambda x, w: x, (3, 4)), "head": nn.Linear(2, 2)})
    model["filter"].w0 = nn.Parameter(torch.randn(3, 4, dtype=torch.cfloat))
    with pytest.raises(AutoSpecError, match="'filter.w0': complex weights are not supported; hold the real"):
        SpectralRecorder(model, groups=["a"])


COMPLEX_USES = {
    "view": ((4, 5, 2), lambda x, w: torch.view_as_real(torch.fft.fft(x) @ torch.view_as_complex(w).T)),
    "einsum": ((4, 5, 2), lambda x, w: torch.einsum("bi,oi->bo", torch.fft.fft(x), torch.view_as_complex(w)).real),
    "cast": ((4, 5), lambda x, w: (torch.fft.fft(x) @ w.to(torch.complex128).T).abs()),
    "filter": ((1, 5), lambda x, w: torch.fft.ifft(torch.fft.fft(x) * w).real),
}


@pytest.mark.parametrize("use", COMPLEX_USES)
@pytest.mark.parametrize("engine", ["hooks", "fused", "per_group", "passes"])
def test_a_weight_that_is_used_as_complex_numbers_is_exact_or_refused_by_name(use, engine):
    shape, function = COMPLEX_USES[use]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), Bare(function, shape)).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    layers = ["0"] if shape[0] == 1 else None  # one row has no spectrum
    if layers is None and engine in ("hooks", "fused"):
        with pytest.raises(AutoSpecError, match=r"layer '1.w0' .*complex numbers.*engine='per_group'.*'!1.w0'"):
            recorded(model, x, engine=engine)
        engine, layers = "hooks", ["!1.w0"]
    recorder = recorded(model, x, engine=engine, **({} if layers is None else {"layers": layers}))
    assert is_exact(recorder, model, x, "0", "0.weight")
    assert "1.w0" not in recorder.layers or is_exact(recorder, model, x, "1.w0", "1.w0")


def test_what_has_no_spectrum_is_listed_once_with_why(caplog):
    model = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.LayerNorm([2, 2]))
    model.register_parameter("token", nn.Parameter(torch.zeros(1, 4)))
    assert left_out(model) == {
        "token": "a side of 1",
        "0.bias": "one dimension",
        "2": "scale of a norm",
        "2.bias": "scale of a norm",
    }
    with caplog.at_level(logging.INFO, logger="autospec"):
        SpectralRecorder(model, groups=["a"])
    (record,) = (record for record in caplog.records if "having no spectrum" in record.message)
    assert "token (a side of 1)" in record.message


def test_how_each_layer_is_recorded_is_said():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    watched = watched_modules(nn.Sequential(nn.Linear(2, 2), Doubled(2, 2)))
    assert [entry.recorded_by for entry in watched] == ["calls of the module", "calls of functions"]


def test_an_overwriting_function_is_refused_by_name():
    model = Bare(lambda x, w: (x * 2).mul_(w), (3, 5))
    recorder = SpectralRecorder(model, groups=["a"])
    message = "layer 'w0' .*: its weight is used by mul_, which overwrites its input; use the form that does not"
    with pytest.raises(AutoSpecError, match=message), recorder.batch([0] * 6):
        model(torch.randn(6, 3, 5)).sum().backward()


def test_a_weight_with_random_numbers_of_its_own_is_refused_by_name():
    model = Bare(lambda x, w: functional.linear(x, functional.dropout(w, 0.5)), (4, 5))
    recorder = SpectralRecorder(model, groups=["a"])
    message = "layer 'w0' .*: its weight is computed with random numbers"
    with pytest.raises(AutoSpecError, match=message), recorder.batch([0] * 6):
        model(torch.randn(6, 5)).sum().backward()


@pytest.mark.parametrize("ends", ["well", "with an exception"])
def test_nothing_is_left_of_a_batch(ends):
    model, x = TiedByHand(), torch.randint(9, (6, 5))
    recorder = SpectralRecorder(model, groups=["a", "b"])
    held = []
    try:
        with recorder.batch(LABELS):
            output = model(x)
            loss = output.sin().mean()
            held.append(weakref.ref(output))
            if ends == "with an exception":
                raise RuntimeError("own")
            loss.backward()
    except RuntimeError:
        pass
    del loss, output
    gc.collect()
    assert not model.words._forward_hooks
    assert not model.words._forward_pre_hooks
    assert torch.overrides._get_current_function_mode() is None
    assert held[0]() is None


def test_attention_in_evaluation_takes_no_fast_path_past_the_record():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    x = torch.randn(6, 3, 8, dtype=torch.float64)
    recorder = recorded(model, x)
    for name in ("self_attn.in_proj_weight", "self_attn.out_proj", "linear1"):
        parameter = name if name.endswith("weight") else f"{name}.weight"
        assert is_exact(recorder, model, x, name, parameter)
