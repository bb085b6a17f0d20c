"""What a user writes outside the package; tests copy it into a folder of their own."""

import numpy as np
import torch
from torch import nn

import autospec


def load(subjects=40, seed=0):
    """Two groups that differ in their first feature, and a label that halves each."""
    rng = np.random.default_rng(seed)
    group = np.repeat(["old", "young"], subjects // 2)
    side = np.tile(["left", "right"], subjects // 2)
    inputs = rng.normal(size=(subjects, 6))
    inputs[group == "old", 0] += 2
    return {
        "inputs": inputs,
        "columns": {"group": group, "side": side},
        "subjects": [f"s{number}" for number in range(subjects)],
        "source": "made up",
        "simulated": True,
    }


def build(inputs, classes, width, depth, activation, bias=True):
    features = int(np.prod(inputs))
    return nn.Sequential(
        nn.Flatten(), nn.Linear(features, width, bias), activation(), nn.Linear(width, classes or features)
    )


def huber(output, inputs, target, delta=1.0):
    return nn.functional.huber_loss(output, inputs, reduction="none", delta=delta).flatten(1).mean(1)


def mean_loss(output, inputs, target):
    return (output - inputs).square().mean()


class Doubled(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 2 * torch.tanh(inputs)


autospec.register_statistic(
    "trace", lambda record: record.gram("activation").diagonal(dim1=1, dim2=2).sum(1), needs=["activation"]
)
