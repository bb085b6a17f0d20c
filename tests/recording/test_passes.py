"""Only the gradient that the optimizer sees is recorded, whatever else runs inside a batch."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from references import full_spectrum
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

from autospec import AutoSpecError, AutoSpecWarning, SpectralRecorder

LABELS = [0, 1] * 4
FIRST = torch.tensor(LABELS) == 0


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def _data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 5, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (8,), generator=generator)


def _expected(model, x, y):
    """The spectrum of group 0 in the mean loss, of the first layer."""
    model = copy.deepcopy(model)
    model.zero_grad()
    (F.cross_entropy(model(x), y, reduction="none")[FIRST].sum() / 8).backward()
    return full_spectrum(model[0].weight.grad)


def _attacked(model, x, y, way):
    """Inputs moved against the loss, by their own gradient."""
    x = x.clone().requires_grad_()
    loss = F.cross_entropy(model(x), y)
    if way == "grad":
        (gradient,) = torch.autograd.grad(loss, x)
    else:
        loss.backward(inputs=[x] if way == "backward(inputs)" else None)
        gradient = x.grad
        if way == "backward and zero_grad":
            model.zero_grad()
    return (x + 0.1 * gradient.sign()).detach()


@pytest.mark.parametrize("engine", ["per_group", "passes", "fused", "fast"])
def test_an_attack_whose_gradient_is_zeroed_is_an_error_where_nothing_can_be_taken_back(engine):
    model, (x, y) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    with recorder.batch(LABELS):
        F.cross_entropy(model(x), y).backward()
    message = "its gradient was zeroed after a backward pass of this batch"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS):
        F.cross_entropy(model(_attacked(model, x, y, "backward and zero_grad")), y).backward()


@pytest.mark.parametrize("way", ["grad", "backward(inputs)", "backward and zero_grad"])
def test_the_backward_pass_of_an_attack_is_not_the_weights_gradient(way):
    """From the second batch on, as after a warm-up."""
    model, (x, y) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    for attacks in (False, True, True):
        with recorder.batch(LABELS):
            moved = _attacked(model, x, y, way) if attacks else x
            F.cross_entropy(model(moved), y).backward()
        recorder.end_epoch()
        found = recorder.table["layers/0/gradient"][-1, 1]
        assert abs(found - _expected(model, moved, y)).max() < 1e-12
        model.zero_grad()


def test_the_gradient_of_an_input_alone_is_no_backward_pass():
    model, (x, _) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    message = r"reached no watched weight .*torch.autograd.grad.*; call loss.backward\(\) inside"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS):
        x = x.clone().requires_grad_()
        torch.autograd.grad(model(x).sum(), x)


def test_gradients_of_weights_that_are_only_returned_are_not_recorded():
    model, (x, y) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        F.cross_entropy(model(x), y).backward()
    recorder.end_epoch()
    assert abs(recorder.table["layers/0/gradient"][0, 1] - _expected(model, x, y)).max() < 1e-12


@pytest.mark.parametrize("zeroes", [True, False])
def test_a_discriminator_is_recorded_without_its_generators_step(zeroes):
    discriminator, generator = _net(), nn.Linear(2, 5).double()
    _, y = _data()
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in (discriminator, generator)]
    recorder = SpectralRecorder(discriminator, groups=["a", "b"])
    for _ in range(2):
        fake = generator(torch.randn(8, 2, dtype=torch.float64))
        with recorder.batch(LABELS):
            optimizers[0].zero_grad()
            F.cross_entropy(discriminator(fake.detach()), y).backward()
            expected = _expected(discriminator, fake.detach(), y)
            optimizers[0].step()
            optimizers[1].zero_grad()
            F.cross_entropy(discriminator(fake), 2 - y).backward()
            optimizers[1].step()
            if zeroes:
                discriminator.zero_grad()
        recorder.end_epoch()
        assert abs(recorder.table["layers/0/gradient"][-1, 1] - expected).max() < 1e-12


def test_two_steps_in_one_batch_are_both_recorded():
    model, (x, y) = _net(), _data()
    optimizer = torch.optim.SGD(model.parameters(), 1e-9)  # so that both gradients are the same
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        for _ in range(2):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    recorder.end_epoch()
    assert recorder.table["layers/0/gradient"][0, 1] == pytest.approx(2 * _expected(model, x, y), abs=1e-8)


def test_a_gradient_that_is_zeroed_before_a_step_is_refused_where_it_was_added_already():
    """As in sharpness-aware minimisation, whose first pass only says where to look for the gradient."""
    model, (x, y) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    message = "its gradient was zeroed after a backward pass of this batch .* around the last pass alone"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS):
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * parameter.grad)
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
    recorder.rewind(0)
    for _ in range(2):  # from now on it is known, and right
        with recorder.batch(LABELS):
            F.cross_entropy(model(x), y).backward()
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
        recorder.end_epoch()
    assert abs(recorder.table["layers/0/gradient"][-1, 1] - _expected(model, x, y)).max() < 1e-12


def test_a_penalty_on_gradients_is_refused_at_any_batch():
    model, (x, y) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        F.cross_entropy(model(x), y).backward()
    message = r"layer '.': the groups' gradients do not add up .*create_graph=True, as for a penalty"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS):
        x = x.clone().requires_grad_()
        output = model(x)
        (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
        (F.cross_entropy(output, y) + gradient.square().sum()).backward()


def test_clipping_inside_the_batch_does_not_matter():
    model, (x, y) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    recorder.end_epoch()
    assert abs(recorder.table["layers/0/gradient"][0, 1] - _expected(model, x, y)).max() < 1e-12


def test_a_weight_used_past_its_module_later_on_is_found():
    class Later(nn.Module):
        extra = False

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return self.layer(x) + (F.linear(x, self.layer.weight) if self.extra else 0)

    model, (x, _) = Later().double(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with pytest.raises(AutoSpecError, match="layer 'layer': the groups' gradients do not add up"):
        for step in range(400):
            model.extra = step > 0
            with recorder.batch(LABELS):
                model(x).square().sum().backward()
            model.zero_grad()


def test_a_copy_and_a_function_transform_inside_a_batch_are_left_alone():
    model, (x, y) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        other = copy.deepcopy(model)
        other(x).sum().backward()
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        loss = lambda p, a, b: F.cross_entropy(functional_call(model, p, (a[None],)), b[None])  # noqa: E731
        vmap(grad(loss), (None, 0, 0))(weights, x, y)
        F.cross_entropy(model(x), y).backward()
    recorder.end_epoch()
    assert abs(recorder.table["layers/0/gradient"][0, 1] - _expected(model, x, y)).max() < 1e-12


# --- what the loss does with the samples -----------------------------------------------------------------------------


def test_weights_of_the_loss_make_scaled_spectra_those_of_the_groups_own_mean():
    model, (x, _) = _net(), _data()
    y, classes = torch.tensor([0] * 6 + [1] * 2), torch.tensor([1.0, 3.0, 1.0], dtype=torch.float64)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(y, weight=classes[y]):
        F.cross_entropy(model(x), y, weight=classes).backward()
    recorder.end_epoch()
    assert recorder.table["groups/weight"][0] == pytest.approx([1.0, 0.5, 0.5])
    scaled = recorder.spectra.scaled("0").values[0]
    for group, part in enumerate((slice(0, 6), slice(6, 8))):
        model.zero_grad()
        F.cross_entropy(model(x[part]), y[part]).backward()
        assert abs(scaled[1 + group] - full_spectrum(model[0].weight.grad)).max() < 1e-12


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0], r"weight must be one per sample, shape \(8,\), not \(1,\)"),
        ([-1.0] + [1.0] * 7, "not negative"),
        ([0.0] * 8, "not zero for every sample"),
        (["one"] * 8, "weight must be numbers"),
    ],
)
def test_weights_of_the_loss_that_do_not_fit(weight, message):
    recorder = SpectralRecorder(_net(), groups=["a", "b"])
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS, weight=weight):
        pass


@pytest.mark.parametrize("before", [True, False])
def test_a_sum_that_is_said_to_be_a_mean_is_a_warning_with_both_numbers(before):
    model, (x, y) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    message = "weight 1, but reduction='mean' says 0.125" if before else r"the loss is [\d.]+, but reduction='mean' of"

    def epoch():
        with recorder.batch(LABELS) as batch:
            losses = F.cross_entropy(model(x), y, reduction="none")
            if before:
                batch.losses(losses)
            losses.sum().backward()
            if not before:
                batch.losses(losses)
        recorder.end_epoch(loss=losses.sum().item())

    with pytest.warns(AutoSpecWarning, match=message) as warned:
        epoch()
    assert [one.filename for one in warned] == [__file__]  # where the loop is, not the recorder


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_reduction_that_fits_is_not_warned_about(reduction):
    model, (x, y) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction=reduction)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with recorder.batch(LABELS) as batch:
            losses = F.cross_entropy(model(x), y, reduction="none")
            batch.losses(losses)
            getattr(losses, reduction)().backward()
        recorder.end_epoch(loss=getattr(losses, reduction)().item())


def test_a_grad_scaler_that_the_recorder_does_not_know_is_asked_for_by_name():
    model, (x, y) = _net().float(), _data()
    scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD(model.parameters(), 0.1)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS):
        scaler.scale(F.cross_entropy(model(x.float()), y)).backward()
    scaler.step(optimizer)
    with pytest.raises(AutoSpecError, match="1/65536 of the gradients .* GradScaler .*scaler=scaler"):
        recorder.end_epoch()


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
@pytest.mark.parametrize("unscaled", [True, False])
def test_a_grad_scaler_is_found_where_its_step_is_within_the_batch(engine, unscaled):
    model, (x, y) = _net().float(), _data()
    scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD(model.parameters(), 0.1)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    with recorder.batch(LABELS):
        scaler.scale(F.cross_entropy(model(x.float()), y)).backward()
        if unscaled:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
    with pytest.raises(AutoSpecError, match="1/65536 of the gradients .* GradScaler .*scaler=scaler"):
        recorder.end_epoch()


class _Checkpointed(nn.Module):
    """A checkpoint within a checkpoint."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return checkpoint(self._outer, x, use_reentrant=False)

    def _outer(self, x):
        return self.second(checkpoint(self.first, x, use_reentrant=False).tanh())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch 2.11's, as it unwinds
@pytest.mark.parametrize("engine", ["per_group", "passes"])
def test_checkpoints_within_checkpoints_are_one_line(engine):
    model = _Checkpointed()
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    with (
        pytest.raises(AutoSpecError, match=r"saved other tensors when it was computed again.*use engine='hooks'"),
        recorder.batch(torch.tensor([0, 0, 1, 1])),
    ):
        model(torch.randn(4, 4)).square().mean().backward()


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_no_scaler_is_asked_for_where_there_is_none(clip):
    model, (x, y) = _net(), _data()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder = SpectralRecorder(model, groups=["a", "b"])
    for _ in range(4):
        with recorder.batch(LABELS):
            (F.cross_entropy(model(x), y) / 2).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        recorder.end_epoch()


def test_half_precision_without_a_step_asks_whether_there_is_a_scaler():
    model, (x, _) = _net().float(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with recorder.batch(LABELS), torch.autocast("cpu", torch.float16):
        model(x.float()).square().mean().backward()
    with pytest.warns(AutoSpecWarning, match="half precision.*GradScaler.*scaler=scaler"):
        recorder.end_epoch()


# --- what has no gradient, and what is left open ---------------------------------------------------------------------


def test_a_tied_weight_whose_first_module_is_never_called():
    parts = {"shared": nn.Embedding(7, 4), "embed_tokens": nn.Embedding(7, 4)}
    model = nn.ModuleDict(parts).double()
    model["embed_tokens"].weight = model["shared"].weight
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=["activation", "gradient"])
    for _ in range(2):
        with recorder.batch(LABELS):
            model["embed_tokens"](torch.arange(8) % 7).square().sum().backward()
        recorder.end_epoch()
    assert np.isnan(recorder.table["layers/shared/activation"]).all()
    assert recorder.table["layers/shared/uses/embed_tokens/activation"][1, 0] == pytest.approx([2**0.5, *[1] * 6])
    assert (
        abs(recorder.table["layers/shared/gradient"][0, 0] - full_spectrum(model["shared"].weight.grad / 2)).max()
        < 1e-12
    )


def test_a_layer_without_a_gradient_is_nan_and_can_be_read():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.used(x)

    statistics = ("gradient", "activation", "adjoint", "rank", "subspace")
    recorder = SpectralRecorder(Unused(), groups=["a", "b"], statistics=statistics)
    with recorder.batch(LABELS):
        recorder._model(torch.randn(8, 5)).square().sum().backward()
    with pytest.warns(AutoSpecWarning, match="layer 'unused': no gradient arrived at epoch 0; stored as NaN"):
        recorder.end_epoch()
    assert np.isnan(recorder.table["layers/unused/gradient"]).all()
    assert recorder.table["layers/unused/gradient"].shape == (1, 3, 3)
    frame = recorder.spectra.to_frame()
    assert frame[frame.layer == "unused"].value.isna().all()
    assert frame[frame.layer == "used"].value.notna().all()


def test_a_batch_that_was_left_open_can_be_given_up():
    model, (x, y) = _net(), _data()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    left_open = recorder.batch(LABELS)
    left_open.__enter__()
    with pytest.raises(AutoSpecError, match=r"already open.*recorder.rewind\(recorder.epoch\) gives up"):
        recorder.batch(LABELS).__enter__()
    recorder.rewind(recorder.epoch)
    with recorder.batch(LABELS):
        F.cross_entropy(model(x), y).backward()
    recorder.end_epoch()
    assert abs(recorder.table["layers/0/gradient"][0, 1] - _expected(model, x, y)).max() < 1e-12


@pytest.mark.parametrize(
    "settings", [{"leading": 2.5}, {"leading": "3"}, {"bins": True}, {"every": 0.5}, {"epochs": 0}]
)
def test_numbers_that_are_no_whole_numbers(settings):
    (name,) = settings
    with pytest.raises(AutoSpecError, match=f"^{name}=.*: must be "):
        SpectralRecorder(_net(), groups=["a"], **settings)
