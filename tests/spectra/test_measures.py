"""Measures near the paper, each against its definition, sample by sample, and where it is known in closed form."""

import math

import pytest
import torch
from torch import nn

from autospec import SpectralRecorder

GROUPS = ["a", "b"]
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1, -1])


def recorded(model, inputs, target, statistics, labels=LABELS, groups=GROUPS):
    """One record of a squared loss, by layer; nothing is trained."""
    recorder = SpectralRecorder(model, groups=groups, statistics=statistics)
    with recorder.batch(labels):
        (model(inputs) - target).square().flatten(1).sum(1).mean().backward()
    recorder.end_epoch()
    return recorder.spectra


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


@pytest.fixture
def inputs():
    return torch.randn(8, 5, dtype=torch.float64)


@pytest.fixture
def target():
    return torch.randn(8, 3, dtype=torch.float64)


def features(net, inputs):
    with torch.no_grad():
        return net[:2](inputs)


def sample_gradients(net, inputs, target, layer):
    """(n, out · in): each sample's part of the gradient of the mean loss, by a backward pass of its own."""
    gradients = []
    for one, wanted in zip(inputs, target, strict=True):
        loss = (net(one[None]) - wanted).square().sum() / len(inputs)
        (gradient,) = torch.autograd.grad(loss, layer.weight)
        gradients.append(gradient.flatten())
    return torch.stack(gradients)


# --- neural collapse -------------------------------------------------------------------------------------------------


def test_collapse_is_the_trace_of_its_definition(net, inputs, target):
    value = recorded(net, inputs, target, ["collapse"])["2"].collapse.item()
    classes = [features(net, inputs)[label == LABELS] for label in (0, 1)]
    means = torch.stack([rows.mean(0) for rows in classes])
    within = sum((rows - mean).mT @ (rows - mean) for rows, mean in zip(classes, means, strict=True)) / 7
    between = (means - means.mean(0)).mT @ (means - means.mean(0)) / 2
    assert value == pytest.approx((within @ torch.linalg.pinv(between, rtol=1e-10)).trace().item() / 2, rel=1e-8)


def test_collapse_is_zero_where_every_class_is_a_point(net, target):
    points = torch.randn(3, 5, dtype=torch.float64)
    spectra = recorded(net, points[LABELS], target, ["collapse", "alignment"])
    assert spectra["0"].collapse.item() == pytest.approx(0, abs=1e-12)


def test_collapse_of_two_spread_points_is_known():
    """Classes at -1 and 1, half of each moved by s to either side: Σ_W = s², Σ_B = 1."""
    inputs = torch.tensor([[-1.5], [-0.5], [0.5], [1.5]]) @ torch.tensor([[1.0, 0.0]])
    model = nn.Linear(2, 2)
    labels = torch.tensor([0, 0, 1, 1])
    spectra = recorded(model, inputs, torch.zeros(4, 2), ["collapse"], labels)
    assert spectra["weight"].collapse.item() == pytest.approx(0.25 / 2)


def test_collapse_of_a_single_class_is_not_known(net, inputs, target):
    spectra = recorded(net, inputs, target, ["collapse"], torch.zeros(8, dtype=torch.int64))
    assert math.isnan(spectra["0"].collapse.item())


# --- alignment -------------------------------------------------------------------------------------------------------


def test_alignment_is_the_cosine_of_the_two_kernels(net, inputs, target):
    value = recorded(net, inputs, target, ["alignment"])["2"].alignment.item()
    rows, labels = features(net, inputs)[:7], LABELS[:7]
    kernel, same = rows @ rows.mT, (labels[:, None] == labels[None]).double()
    assert value == pytest.approx(((kernel * same).sum() / (kernel.norm() * same.norm())).item(), rel=1e-10)


def test_alignment_is_one_where_inputs_are_the_labels(target):
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    inputs = nn.functional.one_hot(labels, 2).double()
    spectra = recorded(nn.Linear(2, 3).double(), inputs, target, ["alignment"], labels)
    assert spectra["weight"].alignment.item() == pytest.approx(1)


# --- diffusion entropy -----------------------------------------------------------------------------------------------


def test_diffusion_entropy_is_that_of_the_markov_matrix(net, inputs, target):
    value = recorded(net, inputs, target, ["diffusion_entropy"])["2"].diffusion_entropy.item()
    rows = features(net, inputs)
    distance = (rows[:, None] - rows[None]).norm(dim=2)
    width = distance[~torch.eye(8, dtype=torch.bool)].median()
    kernel = torch.exp(-((distance / width) ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True) / kernel.sum(1)
    markov = kernel / kernel.sum(1, keepdim=True)
    values = torch.linalg.eigvals(markov).abs()
    share = values / values.sum()
    assert value == pytest.approx(-(share * share.log2()).sum().item(), rel=1e-8)


def test_diffusion_entropy_of_rows_that_are_equally_far_apart_is_known():
    """Eigenvalues 1 and, seven times, (1 - 1/e) / (1 + 7/e): those of a matrix of 1 and 1/e."""
    spectra = recorded(nn.Linear(8, 3).double(), torch.eye(8).double(), torch.zeros(8, 3), ["diffusion_entropy"])
    other = (1 - math.exp(-1)) / (1 + 7 * math.exp(-1))
    shares = [value / (1 + 7 * other) for value in [1.0, *[other] * 7]]
    expected = -sum(share * math.log2(share) for share in shares)
    assert spectra["weight"].diffusion_entropy.item() == pytest.approx(expected, rel=1e-8)


def test_diffusion_entropy_of_a_single_point_is_zero(target):
    spectra = recorded(nn.Linear(2, 3).double(), torch.ones(8, 2).double(), target, ["diffusion_entropy"])
    assert spectra["weight"].diffusion_entropy.item() == 0


# --- noise scale -----------------------------------------------------------------------------------------------------


def test_noise_scale_is_that_of_the_samples_gradients(net, inputs, target):
    inputs, target = inputs + 3, target + 20  # gradients that agree, so that the mean stands above the noise
    spectra = recorded(net, inputs, target, ["noise_scale"])
    for name, layer in (("0", net[0]), ("2", net[2])):
        gradients = sample_gradients(net, inputs, target, layer)
        for group, members in (("all", slice(None)), ("a", LABELS == 0), ("b", LABELS == 1)):
            own = gradients[members]
            covariance = own.var(0).sum()
            mean = own.mean(0).square().sum() - covariance / len(own)
            value = spectra[name].noise_scale.sel(group=group).item()
            assert value == pytest.approx((covariance / mean).item(), rel=1e-8)


def test_noise_scale_of_equal_samples_is_zero(net):
    inputs, target = torch.ones(8, 5, dtype=torch.float64), torch.ones(8, 3, dtype=torch.float64)
    values = recorded(net, inputs, target, ["noise_scale"])["0"].noise_scale.values
    assert values == pytest.approx(0, abs=1e-10)


def test_noise_scale_of_a_tied_weight_is_that_of_whole_samples():
    """Three steps a sample: the norm of the steps' sum, not the sum of their norms."""
    model = nn.Linear(4, 3).double()
    inputs = torch.randn(8, 3, 4, dtype=torch.float64) + 2
    target = torch.randn(8, 3, 3, dtype=torch.float64) + 9
    value = recorded(model, inputs, target, ["noise_scale"])["weight"].noise_scale.sel(group="all").item()
    own = sample_gradients(model, inputs, target, model)
    covariance = own.var(0).sum()
    assert value == pytest.approx((covariance / (own.mean(0).square().sum() - covariance / 8)).item(), rel=1e-8)


# --- tail exponent ---------------------------------------------------------------------------------------------------


def test_tail_exponent_of_a_power_law_is_its_exponent():
    sigma = torch.arange(1, 9, dtype=torch.float64) ** -0.75  # λ = σ² = i^-1.5
    rows = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q * sigma
    spectra = recorded(nn.Linear(8, 3).double(), rows, torch.zeros(8, 3).double(), ["tail_exponent"])
    assert spectra["weight"].tail_exponent.sel(group="all").item() == pytest.approx(1.5, rel=1e-8)


# --- the optimizer's update ------------------------------------------------------------------------------------------


def trained(model, statistics, epochs, optimizer):
    """Recorded epochs of one batch each, and the weights after each, those before the first among them."""
    inputs, target = torch.randn(8, 5), torch.randn(8, 3)
    weights = [model[0].weight.detach().clone()]
    with SpectralRecorder(model, groups=GROUPS, statistics=statistics) as recorder:
        for _ in range(epochs):
            with recorder.batch(LABELS):
                (model(inputs) - target).square().sum(1).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.end_epoch()
            weights.append(model[0].weight.detach().clone())
        return recorder.spectra, weights


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_update_is_the_spectrum_of_the_step(kind):
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    spectra, weights = trained(model, ["weight_update"], 3, kind(model.parameters(), lr=0.1))
    for epoch in range(3):
        step = weights[epoch + 1].double() - weights[epoch].double()
        assert spectra["0"].weight_update.values[epoch] == pytest.approx(torch.linalg.svdvals(step).numpy(), abs=1e-12)


def test_update_of_plain_gradient_descent_is_the_gradient_times_the_rate():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.set_default_dtype(torch.float64)
    try:
        spectra, _ = trained(model, ["gradient", "weight_update"], 2, optimizer)
    finally:
        torch.set_default_dtype(torch.float32)
    gradient = spectra["0"].gradient.sel(group="all").values
    assert spectra["0"].weight_update.values == pytest.approx(0.1 * gradient, rel=1e-8)
