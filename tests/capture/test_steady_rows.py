"""Graphs that leave nothing for a later batch's values to change, and those that do not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import get_gradient_edge

from autospec.capture.steady_rows import has_steady_rows
from autospec.capture.trace_graph import backward_graph

SAMPLES = 6


class Does(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second, self.between = nn.Linear(4, 4), nn.Linear(4, 2), between

    def forward(self, x):
        return self.second(self.between(self.first(x)))


def _is_steady(model, x):
    graph = backward_graph([get_gradient_edge(model(x)).node])
    return has_steady_rows(graph, SAMPLES, model)


def _frozen(model):
    model[2].requires_grad_(False)
    return model


STEADY = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(), nn.Linear(8, 2)), (6, 4)),
    "as wide as the batch": (lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)), (6, 6)),
    "a frozen layer": (lambda: _frozen(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))), (6, 4)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        (6, 1, 9, 9),
    ),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (6, 7, 8)),
    "one number per sample": (lambda: Does(lambda h: h * h.mean(1, keepdim=True)), (6, 4)),
    "a softmax over features": (lambda: Does(lambda h: h.softmax(-1)), (6, 4)),
}
UNSTEADY = {
    "a mask": lambda h: (torch.eye(6)[:, :, None] * h).sum(1),
    "a product": lambda h: torch.eye(6) @ h,
    "a product from the right": lambda h: (h.T.contiguous() @ torch.eye(6)).T,
    "a product of a batch": lambda h: torch.bmm(torch.eye(6)[:, None], h.expand(6, 6, 4))[:, 0],
    "a convolution": lambda h: F.conv1d(h[None], torch.eye(6)[:, :, None])[0],
    "vectors": lambda h: torch.stack([torch.mv(torch.eye(6), column) for column in h.T], 1),
    "a mean of the batch": lambda h: h - 0.0 * h.mean(0),
    "a softmax over the batch": lambda h: h.softmax(0),
    "a sum of all": lambda h: h - 0.0 * h.sum(),
    "pieces": lambda h: torch.cat(h.split(1)),
    "a reversal": lambda h: h.flip(0),
    "a cumulated sum": lambda h: h.cumsum(0),
    "something unknown": lambda h: torch.linalg.solve(torch.eye(6), h),
}


@pytest.mark.parametrize("name", STEADY)
def test_common_networks_are_steady(name):
    make, shape = STEADY[name]
    assert _is_steady(make(), torch.randn(shape))


@pytest.mark.parametrize("name", UNSTEADY)
def test_what_values_could_move_or_join_is_not(name):
    assert not _is_steady(Does(UNSTEADY[name]), torch.randn(6, 4))


def test_a_loss_that_the_model_returns_is_steady():
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return F.cross_entropy(self.layer(x), torch.zeros(len(x), dtype=torch.int64))

    assert _is_steady(WithLoss(), torch.randn(6, 4))
