"""The ways to train a network that the benchmark compares: each gives one training step, with or without spectra."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from autospec.experiments.benchmark.problems import Problem
from autospec.recording.recorder import SpectralRecorder

Step = Callable[[], None]
Arm = Callable[[Problem], Step]

PLAIN, PLAIN_AGAIN = "plain", "plain again"
LOOP = "loop over groups"


def plain(problem: Problem) -> Step:
    """Training without spectra."""
    model, optimizer = _trained(problem)

    def step() -> None:
        _mean_loss(model, problem.inputs).backward()
        _update(optimizer)

    return step


def recorded(engine: str, every: int = 1, statistics: Sequence[str] = ("gradient",), floor: str = "formula") -> Arm:
    """Training with a recorder that stores the spectra of every weight at every k-th step, in memory."""

    def arm(problem: Problem) -> Step:
        model, optimizer = _trained(problem)
        names = [f"group {label}" for label in range(int(problem.group.max()) + 1)]
        recorder = SpectralRecorder(model, groups=names, engine=engine, every=every, statistics=statistics, floor=floor)

        def step() -> None:
            with recorder.batch(problem.group):
                _mean_loss(model, problem.inputs).backward()
            _update(optimizer)
            recorder.end_epoch()

        return step

    return arm


def loop_over_groups(problem: Problem) -> Step:
    """What a user would write: one forward and backward pass per group, and ``svdvals`` of every gradient."""
    model, optimizer = _trained(problem)
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def step() -> None:
        sums: list[Tensor | None] = [None] * len(weights)
        for label in range(int(problem.group.max()) + 1):
            inputs = problem.inputs[problem.group == label]
            (_mean_loss(model, inputs) * (len(inputs) / len(problem.inputs))).backward()
            _decompose([weight.grad for weight in weights])
            for place, weight in enumerate(weights):
                before = sums[place]
                sums[place] = weight.grad if before is None or weight.grad is None else before + weight.grad
                weight.grad = None
        for weight, total in zip(weights, sums, strict=True):
            weight.grad = total
        _decompose(sums)
        _update(optimizer)

    return step


def backward_per_group(problem: Problem) -> Step:
    """One forward pass, a backward pass for each group's loss, ``svdvals`` of every gradient."""
    model, optimizer = _trained(problem)
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def step() -> None:
        losses = _losses(model, problem.inputs)
        for label in range(int(problem.group.max()) + 1):
            part = losses[problem.group == label].sum() / len(losses)
            _decompose(torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True))
        losses.mean().backward()
        _decompose([weight.grad for weight in weights])
        _update(optimizer)

    return step


ARMS: dict[str, Arm] = {
    PLAIN: plain,
    PLAIN_AGAIN: plain,
    "hooks": recorded("hooks"),
    "fast": recorded("fast"),
    "per_group": recorded("per_group"),
    "passes": recorded("passes"),
    "fused": recorded("fused"),
    LOOP: loop_over_groups,
    "backward per group": backward_per_group,
    "fast, every 10": recorded("fast", every=10),
    "hooks, every 10": recorded("hooks", every=10),
    "hooks, measured floor": recorded("hooks", floor="measured"),
    "hooks, all statistics": recorded("hooks", statistics=("gradient", "activation", "adjoint")),
}
"""Every way by its name, in the order of the table."""


def _trained(problem: Problem) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network of an arm's own, and what trains it."""
    model = copy.deepcopy(problem.model)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)


def _losses(model: nn.Module, inputs: Tensor) -> Tensor:
    """(n,): each sample's mean squared error."""
    losses: Tensor = (model(inputs) - inputs).square().flatten(1).mean(1)
    return losses


def _mean_loss(model: nn.Module, inputs: Tensor) -> Tensor:
    return _losses(model, inputs).mean()


def _update(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad()


def _decompose(gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """The singular values of the matrices among some gradients."""
    return [torch.linalg.svdvals(matrix.flatten(1)) for matrix in gradients if matrix is not None and matrix.dim() > 1]
