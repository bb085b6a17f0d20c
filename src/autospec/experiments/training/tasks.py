"""What a network learns: the loss of each sample, and a metric for readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from autospec.errors import AutoSpecError
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
    """Mean squared error of each sample, (n,); AutoSpecError for an output that would be broadcast."""
    if output.shape != inputs.shape:
        raise AutoSpecError(
            f"the network returns {tuple(output.shape)}; an autoencoder returns the shape of its inputs, "
            f"{tuple(inputs.shape)}"
        )
    return (output - inputs).square().flatten(1).mean(1)


def classification_losses(output: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each sample, (n,), from logits (n, classes); AutoSpecError for another shape."""
    if output.dim() != 2 or len(output) != len(target):
        raise AutoSpecError(
            f"the network returns {tuple(output.shape)}; a classifier of {len(target)} samples returns a logit of each "
            "class for each of them"
        )
    return functional.cross_entropy(output, target, reduction="none")


def explained_variance(output: Tensor, inputs: Tensor, target: Tensor, mean: Tensor) -> Tensor:
    """``1 - Σ(x - x̂)² / Σ(x - x̄)²``, with x̄ the mean of the training inputs: above 0 is better than that mean."""
    return 1 - (output - inputs).square().sum() / (inputs - mean).square().sum()


def accuracy(output: Tensor, inputs: Tensor, target: Tensor, mean: Tensor) -> Tensor:
    """The share of samples whose largest logit is their class."""
    return (output.argmax(1) == target).float().mean()


# of several processes each has its share of a batch: sums can be added up, shares of variance cannot
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


def with_losses(task: Task, losses: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Task:
    """A task with another loss of each sample.

    Args:
        task: with its metric.
        losses: (output, inputs, target) of a batch → (n,).

    Returns:
        The task; its losses raise AutoSpecError where the function returns anything but one loss a sample.
    """

    def checked(output: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
        values = losses(output, inputs, target)
        if not isinstance(values, Tensor) or values.shape != (len(inputs),):
            shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise AutoSpecError(
                f"loss._target_ returned {shape}; one loss for each of the {len(inputs)} samples is needed "
                "(reduction='none')"
            )
        return values

    return replace(task, losses=checked)
