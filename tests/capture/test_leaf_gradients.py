"""The first batch is held against the gradients that backward left: nothing is silently wrong."""

import pytest
import torch
from references import full_spectrum
from torch import nn

import autospec
from autospec import AutoSpecError, SpectralRecorder


class UsedOutside(nn.Module):
    """Uses a layer's weight a second time, past its module."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(5, 3)

    def forward(self, x):
        return self.encoder(x) @ self.encoder.weight


def _step(model, inputs):
    recorder = SpectralRecorder(model, groups=["a"])
    with recorder.batch([0] * len(inputs)):
        model(inputs).square().sum().backward()
    return recorder


class UsedWhereNoneSees(UsedOutside):
    """Writes the weight into a tensor of its own."""

    def forward(self, x):
        weight = torch.zeros(3, 5)
        weight[:] = self.encoder.weight
        return self.encoder(x) @ weight


def test_a_weight_that_is_used_in_a_way_that_is_not_followed_is_found():
    with pytest.raises(AutoSpecError, match=r"layer 'encoder': .* do not add up to .* backward left .*'!encoder'"):
        _step(UsedWhereNoneSees(), torch.randn(4, 5))


def test_a_weight_that_is_used_outside_its_module_is_recorded_with_both_uses():
    model, inputs = UsedOutside().double(), torch.randn(4, 5, dtype=torch.float64)
    recorder = _step(model, inputs)
    recorder.end_epoch()
    expected = full_spectrum(model.encoder.weight.grad)
    assert abs(recorder.table["layers/encoder/gradient"][0, 1] - expected).max() < 1e-12 * expected[0]


def test_a_rule_that_is_wrong_is_found():
    class Tripled(nn.Linear):
        def forward(self, x):
            return 3 * nn.functional.linear(x, self.weight)

    @autospec.register_rule(Tripled)
    def wrong(layer, call):
        return {"weight": autospec.GradientFactors(call.activation, call.adjoint)}

    with pytest.raises(AutoSpecError, match="the rule of Tripled does not describe"):
        _step(nn.Sequential(Tripled(3, 3)), torch.randn(4, 3))


HOOKS = {"clips": lambda gradient: gradient.clamp(-1e-3, 1e-3), "doubles": lambda gradient: 2 * gradient}


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_users_hook_on_a_weight_is_blamed_and_no_rule(engine, hook):
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), torch.randn(6, 5)
    model[0].weight.register_hook(HOOKS[hook])
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    expected = r"layer '0': .* A hook on its weight \(weight.register_hook\) changes .* or leave the layer out .*'!0'"
    with pytest.raises(AutoSpecError, match=expected), recorder.batch([0, 0, 1, 1, 1, 0]):
        model(inputs).square().mean().backward()


def test_nothing_is_left_on_the_weights():
    model = nn.Sequential(nn.Linear(5, 3))
    _step(model, torch.randn(4, 5))
    assert model[0].weight._backward_hooks is None
    assert not model[0].weight._post_accumulate_grad_hooks


def test_gradients_that_are_there_already_do_not_matter():
    model = nn.Sequential(nn.Linear(5, 3))
    model(torch.randn(4, 5)).sum().backward()
    _step(model, torch.randn(4, 5))
