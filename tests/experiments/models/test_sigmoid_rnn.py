"""The sigmoid Elman cell on the tanh kernel, against the equation step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autospec.capture.rules.registry import LayerCall, rule_of
from autospec.experiments.models.sigmoid_rnn import SigmoidRNN

SAMPLES, TIME, CHANNELS, WIDTH = 4, 9, 3, 5
CLOSE = {"rtol": 0, "atol": 1e-12}


def looped(cells: SigmoidRNN, inputs: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The top layer's states, and of every layer its inputs and pre-activations, step by step."""
    states, below, preactivations = inputs, [], []
    for layer in range(cells.depth):
        weight_ih, weight_hh, bias_ih, bias_hh = cells.weights_of(layer)
        below.append(states)
        state, steps, sums = torch.zeros(len(inputs), WIDTH, dtype=inputs.dtype), [], []
        for step in range(inputs.shape[1]):
            sums.append(states[:, step] @ weight_ih.T + bias_ih + state @ weight_hh.T + bias_hh)
            state = torch.sigmoid(sums[-1])
            steps.append(state)
        states = torch.stack(steps, dim=1)
        preactivations.append(sums)
    return states, below, preactivations


@pytest.fixture(params=[1, 3])
def cells(request: pytest.FixtureRequest) -> SigmoidRNN:
    torch.manual_seed(request.param)
    return SigmoidRNN(CHANNELS, WIDTH, request.param).double()


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(SAMPLES, TIME, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_states_are_those_of_the_equation(cells, inputs):
    torch.testing.assert_close(cells(inputs)[0], looped(cells, inputs)[0], **CLOSE)


def test_gradients_are_those_of_the_equation(cells, inputs):
    seed = torch.randn(SAMPLES, TIME, WIDTH, dtype=torch.float64)
    found = torch.autograd.grad(cells(inputs)[0], list(cells.parameters()), seed)
    expected = torch.autograd.grad(looped(cells, inputs)[0], list(cells.parameters()), seed)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_rule_gives_the_factors_of_the_equation(cells, inputs):
    seed = torch.randn(SAMPLES, TIME, WIDTH, dtype=torch.float64)
    states, below, preactivations = looped(cells, inputs)
    rule = rule_of(cells)
    assert rule is not None
    with torch.no_grad():
        factors = rule.explain(cells, LayerCall((inputs,), {}, (states.detach(),), (seed,)))
    assert list(rule.weights(cells)) == [name for name, p in cells.named_parameters() if p.dim() == 2]
    for layer, sums in enumerate(preactivations):
        adjoint = torch.stack(torch.autograd.grad(states, sums, seed, retain_graph=True), dim=1)
        own = torch.sigmoid(torch.stack(sums, dim=1))
        before = torch.cat([torch.zeros(SAMPLES, 1, WIDTH), own[:, :-1]], dim=1)
        for name, activation in ((f"weight_ih_l{layer}", below[layer]), (f"weight_hh_l{layer}", before)):
            torch.testing.assert_close(factors[name].adjoint[0], adjoint, **CLOSE)
            torch.testing.assert_close(factors[name].activation[0], activation.detach(), **CLOSE)


def test_groups_add_up_to_the_gradient(cells, inputs):
    seed = torch.randn(SAMPLES, TIME, WIDTH, dtype=torch.float64)
    cells(inputs)[0].backward(seed)
    with torch.no_grad():
        factors = rule_of(cells).explain(cells, LayerCall((inputs,), {}, (), (seed,)))
    for name, found in factors.items():
        parts = found.product(torch.tensor([0, 2])) + found.product(torch.tensor([1, 3]))
        torch.testing.assert_close(parts, cells.get_parameter(name).grad, **CLOSE)


def test_parameters_are_those_of_torch_cells():
    torch.manual_seed(7)
    ours = dict(SigmoidRNN(CHANNELS, WIDTH, 2).named_parameters())
    torch.manual_seed(7)
    theirs = dict(nn.RNN(CHANNELS, WIDTH, 2).named_parameters())
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_weights_can_be_exchanged_for_views(cells, inputs):
    aliases = {name: weight.view_as(weight) for name, weight in cells.named_parameters()}
    states = torch.func.functional_call(cells, aliases, (inputs,))[0]
    (found,) = torch.autograd.grad(states.sum(), aliases["weight_hh_l0"])
    (expected,) = torch.autograd.grad(cells(inputs)[0].sum(), cells.weight_hh_l0)
    torch.testing.assert_close(found, expected, **CLOSE)
