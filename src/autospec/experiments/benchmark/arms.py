"""The ways to train a network that the benchmark compares: each gives one training step, with or without spectra."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autospec.errors import AutoSpecError
from autospec.experiments.benchmark.least import gram_sides, grams_of_sides
from autospec.experiments.benchmark.peers import SampleGradients, backpack, opacus, trained_weights, vmap_grad
from autospec.experiments.benchmark.problems import Problem
from autospec.recording.recorder import SpectralRecorder
from autospec.spectra.symmetric import eigenvalues

Step = Callable[[], None]
Arm = Callable[[Problem], Step]

PLAIN, PLAIN_AGAIN = "plain", "plain again"
LOOP = "loop over groups"
BACKWARDS = "C backward passes"
FAST, HOOKS = "fast", "hooks"
EIGENVALUES = "plain, eigenvalues alone"
VMAP, OPACUS, BACKPACK = "vmap(grad)", "Opacus", "BackPACK"
OTHERS = (LOOP, BACKWARDS, VMAP, OPACUS, BACKPACK)
"""What others would do for the same spectra at every step."""
ENGINES = (FAST, HOOKS, "per_group", "passes", "fused")


def plain(problem: Problem) -> Step:
    """Training without spectra."""
    model, optimizer = trained(problem)

    def step() -> None:
        problem.losses(model).mean().backward()
        update(optimizer)

    return step


def eigenvalues_alone(problem: Problem) -> Step:
    """Training, and LAPACK's eigenvalues of matrices as large as those that all statistics are had from; no spectra."""
    model, optimizer = trained(problem)
    grams = grams_of_sides(gram_sides(problem))

    def step() -> None:
        problem.losses(model).mean().backward()
        update(optimizer)
        for gram in grams:
            eigenvalues(gram)

    return step


def recorded(
    engine: str,
    every: int = 1,
    statistics: Sequence[str] = ("gradient",),
    floor: str = "formula",
    leading: int | None = None,
    tolerance: float | None = None,
) -> Arm:
    """Training with a recorder that stores the spectra of every weight at every k-th step, in memory."""

    def arm(problem: Problem) -> Step:
        model, optimizer = trained(problem)
        names = [f"group {label}" for label in range(int(problem.group.max()) + 1)]
        recorder = SpectralRecorder(
            model,
            groups=names,
            engine=engine,
            every=every,
            statistics=statistics,
            floor=floor,
            leading=leading,
            tolerance=tolerance,
        )

        return RecordedStep(problem, model, optimizer, recorder)

    return arm


@dataclass(frozen=True)
class RecordedStep:
    """A training step with a recorder, which lets records wait, to compute the spectra of several together."""

    problem: Problem
    model: nn.Module
    optimizer: torch.optim.Optimizer
    recorder: SpectralRecorder

    def __call__(self) -> None:
        with self.recorder.batch(self.problem.group):
            self.problem.losses(self.model).mean().backward()
        update(self.optimizer)
        self.recorder.end_epoch()

    def settle(self) -> None:
        """Compute the spectra of every record so far, as whoever reads them does."""
        _ = self.recorder.table


def loop_over_groups(problem: Problem) -> Step:
    """What a user would write: one forward and backward pass per group, and ``svdvals`` of every gradient."""
    refuse_batch_norm(problem)
    model, optimizer = trained(problem)
    weights = trained_weights(model)

    def step() -> None:
        sums: list[Tensor | None] = [None] * len(weights)
        for label in range(int(problem.group.max()) + 1):
            losses = problem.losses(model, problem.group == label)
            (losses.sum() / len(problem.inputs)).backward()
            decompose([weight.grad for weight in weights])
            for place, weight in enumerate(weights):
                before = sums[place]
                sums[place] = weight.grad if before is None or weight.grad is None else before + weight.grad
                # each group by itself; the optimizer gets the sum of all in the end
                weight.grad = None
        for weight, total in zip(weights, sums, strict=True):
            weight.grad = total
        decompose(sums)
        update(optimizer)

    return step


def backward_per_group(problem: Problem) -> Step:
    """One forward pass, a backward pass for each group's loss, ``svdvals`` of every gradient."""
    model, optimizer = trained(problem)
    weights = trained_weights(model)

    def step() -> None:
        losses = problem.losses(model)
        for label in range(int(problem.group.max()) + 1):
            part = losses[problem.group == label].sum() / len(losses)
            decompose(torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True))
        losses.mean().backward()
        decompose([weight.grad for weight in weights])
        update(optimizer)

    return step


def per_sample(peer: SampleGradients) -> Arm:
    """The gradient of every sample by a library, summed by group, and ``svdvals`` of every sum."""

    def arm(problem: Problem) -> Step:
        refuse_batch_norm(problem)
        model, optimizer = trained(problem)
        gradients_of = peer(model, problem)
        groups = int(problem.group.max()) + 1

        def step() -> None:
            for weight, of_samples in zip(trained_weights(model), gradients_of(), strict=True):
                sums = of_samples.new_zeros((groups, *weight.shape)).index_add_(0, problem.group, of_samples)
                weight.grad = sums.sum(0)
                if weight.dim() > 1:
                    torch.linalg.svdvals(torch.cat([sums, weight.grad[None]]).flatten(2))
            update(optimizer)

        return step

    return arm


def refuse_batch_norm(problem: Problem) -> None:
    """AutoSpecError where samples depend on one another, so that a pass of some is another network."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in problem.model.modules()):
        raise AutoSpecError("BatchNorm: with some of the samples alone it is another network")


ARMS: dict[str, Arm] = {
    PLAIN: plain,
    PLAIN_AGAIN: plain,
    FAST: recorded(FAST),
    HOOKS: recorded(HOOKS),
    "per_group": recorded("per_group"),
    "passes": recorded("passes"),
    "fused": recorded("fused"),
    LOOP: loop_over_groups,
    BACKWARDS: backward_per_group,
    VMAP: per_sample(vmap_grad),
    OPACUS: per_sample(opacus),
    BACKPACK: per_sample(backpack),
    "fast, leading 16": recorded("fast", leading=16, tolerance=1e-6),
    "fast, every 10": recorded("fast", every=10),
    "hooks, every 10": recorded("hooks", every=10),
    "hooks, measured floor": recorded("hooks", floor="measured"),
    "hooks, all statistics": recorded("hooks", statistics=("gradient", "activation", "adjoint")),
    EIGENVALUES: eigenvalues_alone,
}
"""Every way by its name, in the order of the table."""


def trained(problem: Problem) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network of an arm's own, and what trains it."""
    model = copy.deepcopy(problem.model)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)


def update(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad()


def decompose(gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """The singular values of the matrices among some gradients."""
    return [torch.linalg.svdvals(matrix.flatten(1)) for matrix in gradients if matrix is not None and matrix.dim() > 1]
