"""What a network learns: the loss of each sample, and a metric for readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from autospec.experiments.config import schema


@dataclass(frozen=True)
class Task:
    """A loss and a metric.

    Attributes:
        name: of the task.
        losses: (output, inputs, target) of a batch → (n,), whose mean is minimised.
        metric_name: what the metric is called.
        metric: (output, inputs, target, mean of the training inputs) of a batch → a number.
        metric_terms: likewise → two sums over samples, a and b, where the metric is 1 - a/b.
    """

    name: str
    losses: Callable[[Tensor, Tensor, Tensor], Tensor]
    metric_name: str
    metric: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    metric_terms: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def reconstruction_losses(output: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample, (n,)."""
    return (output - inputs).square().flatten(1).mean(1)


def classification_losses(output: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each sample, (n,), from logits (n, classes)."""
    return functional.cross_entropy(output, target, reduction="none")


def explained_variance(output: Tensor, inputs: Tensor, target: Tensor, mean: Tensor) -> Tensor:
    """``1 - Σ(x - x̂)² / Σ(x - x̄)²``, with x̄ the mean of the training inputs: above 0 is better than that mean."""
    return 1 - (output - inputs).square().sum() / (inputs - mean).square().sum()


def accuracy(output: Tensor, inputs: Tensor, target: Tensor, mean: Tensor) -> Tensor:
    """The share of samples whose largest logit is their class."""
    return (output.argmax(1) == target).float().mean()


def explained_variance_terms(output: Tensor, inputs: Tensor, target: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The two sums of squares of ``explained_variance``."""
    return (output - inputs).square().sum(), (inputs - mean).square().sum()


def accuracy_terms(output: Tensor, inputs: Tensor, target: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """How many samples are wrong, and how many there are."""
    wrong = (output.argmax(1) != target).sum()
    return wrong, torch.full_like(wrong, len(target))


TASKS = {
    schema.Task.autoencoding: Task(
        "autoencoding", reconstruction_losses, "explained variance", explained_variance, explained_variance_terms
    ),
    schema.Task.classification: Task("classification", classification_losses, "accuracy", accuracy, accuracy_terms),
}
