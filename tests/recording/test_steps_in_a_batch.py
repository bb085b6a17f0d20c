"""Optimizer steps inside a batch: closures that run passes of their own, and another model's step."""

import copy

import pytest
import torch
from references import full_spectrum
from torch import nn

from autospec import AutoSpecError, SpectralRecorder

LABELS = torch.tensor([0, 0, 1, -1, 1, 0])
ENGINES = ["hooks", "per_group", "passes", "fused", "fast"]


def _model():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def _normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_passes_of_a_closure_add_up(engine):
    model, x, target = _model(), _normal(6, 4), _normal(6, 3)
    own = [torch.zeros(5, 4, dtype=torch.float64) for _ in range(2)]
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure():
        for group in (0, 1):
            alone = _model()
            alone.load_state_dict(model.state_dict())
            (((alone(x) - target) ** 2).mean(1)[group == LABELS].sum() / 6).backward()
            own[group] += alone[0].weight.grad
        optimizer.zero_grad()
        loss = ((model(x) - target) ** 2).mean()
        loss.backward()
        return loss

    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine, floor="formula")
    with recorder.batch(LABELS) as batch:
        optimizer.step(closure)
    recorder.end_epoch()
    for group in (0, 1):
        assert abs(recorder.table["layers/0/gradient"][0, 1 + group] - full_spectrum(own[group])).max() < 1e-10
    # each evaluation enters the scale, so that scaled values are of a mean gradient
    share = (LABELS == 0).sum() / 6
    evaluations = optimizer.state[model[0].weight]["func_evals"]
    assert evaluations > 1
    assert recorder.table["groups/weight"][0, 1] == pytest.approx(float(share) * evaluations)
    assert batch.share == 1


@pytest.mark.parametrize("engine", ["hooks", "fused"])
def test_closures_of_two_optimizers_count_once_or_are_refused(engine):
    model, x = _model(), _normal(6, 4)
    first = torch.optim.LBFGS(model[0].parameters(), max_iter=4)
    second = torch.optim.SGD(model[2].parameters(), lr=0.1)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine, floor="formula")

    def closure():
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    with recorder.batch(LABELS):
        second.step(closure)
        second.step(lambda: None)
    recorder.end_epoch()
    assert recorder.table["groups/weight"][0, 0] == pytest.approx(1)
    message = "evaluated their closures 1 and . times, so that one scale does not hold for all layers"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS):
        first.step(closure)
        second.step(closure)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_generators_step_in_a_discriminators_batch_is_left_out_or_refused(engine):
    discriminator, generator = _model(), nn.Linear(2, 4).double()
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    recorder = SpectralRecorder(discriminator, groups=["a", "b"], engine=engine, floor="formula")
    x = _normal(6, 4)
    alone = copy.deepcopy(discriminator)
    (alone(x).square().mean(1)[LABELS == 0].sum() / 6).backward()

    def step():
        with recorder.batch(LABELS):
            discriminator(x).square().mean().backward()
            optimizer.step()
            discriminator(generator(_normal(6, 2))).mean().backward()
            optimizer.zero_grad()

    if engine == "hooks":
        step()
        recorder.end_epoch()
        assert abs(recorder.table["layers/0/gradient"][0, 1] - full_spectrum(alone[0].weight.grad)).max() < 1e-10
    else:
        with pytest.raises(AutoSpecError, match="a gradient arrived after the optimizer's step of this batch"):
            step()
    assert not any(parameter._post_accumulate_grad_hooks for parameter in discriminator.parameters())


@pytest.mark.parametrize("engine", ENGINES)
def test_two_steps_in_one_batch_are_both_recorded(engine):
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine, floor="formula")
    own = torch.zeros(5, 4, dtype=torch.float64)
    with recorder.batch(LABELS):
        for _ in range(2):
            x, alone = _normal(6, 4), _model()
            alone.load_state_dict(model.state_dict())
            (alone(x).square().mean(1)[LABELS == 0].sum() / 6).backward()
            own += alone[0].weight.grad
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    recorder.end_epoch()
    assert abs(recorder.table["layers/0/gradient"][0, 1] - full_spectrum(own)).max() < 1e-10


@pytest.mark.parametrize("engine", ENGINES)
def test_a_replaced_head_is_named_by_every_engine(engine):
    model = _model()
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    model[2] = nn.Linear(5, 3).double()
    with pytest.raises(AutoSpecError, match="layer '2': replaced after the recorder was made"), recorder.batch(LABELS):
        model(_normal(6, 4)).sum().backward()


def test_an_attacks_pass_is_left_out_at_every_batch_though_steps_are_taken_between_them():
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = SpectralRecorder(model, groups=["a", "b"], floor="formula")
    for _ in range(3):
        alone, x = copy.deepcopy(model), _normal(6, 4).requires_grad_()
        with recorder.batch(LABELS):
            model(x).square().mean().backward()
            attacked = (x + 0.1 * x.grad.sign()).detach()
            optimizer.zero_grad()
            model(attacked).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.end_epoch()
        (alone(attacked).square().mean(1)[LABELS == 0].sum() / 6).backward()
        expected = full_spectrum(alone[0].weight.grad)
        assert abs(recorder.table["layers/0/gradient"][-1, 1] - expected).max() < 1e-10


@pytest.mark.parametrize("engine", ENGINES)
def test_a_grad_scaler_that_was_not_given_is_asked_for_by_every_engine(engine):
    model, scaler = _model().float(), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine, floor="formula")
    with recorder.batch(LABELS):
        scaler.scale(model(torch.randn(6, 4)).square().mean()).backward()
    scaler.step(optimizer)
    with pytest.raises(AutoSpecError, match=r"1/65536 of the gradients .* SpectralRecorder\(..., scaler=scaler\)"):
        recorder.end_epoch()


@pytest.mark.parametrize("recorders", [2, 3])
def test_several_recorders_of_one_model_hear_of_the_same_step(recorders):
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    opened = [SpectralRecorder(model, groups=["a", "b"]) for _ in range(recorders)]
    for _ in range(3):
        x = _normal(6, 4)
        for recorder in opened:
            optimizer.zero_grad()
            with recorder.batch(LABELS):
                model(x).square().mean().backward()
            recorder.end_epoch()
        optimizer.step()
    first, *others = [recorder.table["layers/0/gradient"] for recorder in opened]
    assert all((other == first).all() for other in others)
