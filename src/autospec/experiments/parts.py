"""The optimizer, the schedule and the loss of a run, as the configuration names them."""

from __future__ import annotations

import torch
from torch import nn

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.config.targets import bind, make
from autospec.experiments.training.tasks import TASKS, Task, with_losses


def optimizer_of(config: ExperimentConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a run.

    Args:
        config: its ``optimizer`` and ``learning_rate``.
        model: whose parameters it changes.

    Raises:
        AutoSpecError: where it cannot be made, or takes a step only with a closure.
    """
    made = make("optimizer", config.optimizer, model.parameters(), lr=config.learning_rate)
    if not isinstance(made, torch.optim.Optimizer):
        raise AutoSpecError(f"optimizer._target_ returned {type(made).__name__}, not a torch.optim.Optimizer")
    if isinstance(made, torch.optim.LBFGS):
        raise AutoSpecError("optimizer._target_=torch.optim.LBFGS: runs several backward passes a step; choose another")
    return made


def schedule_of(
    config: ExperimentConfig, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Return the schedule of the learning rate, stepped after each epoch; None where the rate stays.

    Args:
        config: its ``schedule``.
        optimizer: whose rate changes.

    Raises:
        AutoSpecError: where it cannot be made, or needs the loss to step.
    """
    if not config.schedule:
        return None
    made = make("schedule", config.schedule, optimizer)
    # asked first, since it is an LRScheduler as well
    if isinstance(made, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise AutoSpecError("schedule._target_: ReduceLROnPlateau needs the loss to step; choose one of epochs alone")
    if not isinstance(made, torch.optim.lr_scheduler.LRScheduler):
        raise AutoSpecError(f"schedule._target_ returned {type(made).__name__}, not an LRScheduler of torch")
    return made


def task_of(config: ExperimentConfig) -> Task:
    """Return a run's task, with the configuration's own loss where it names one.

    Args:
        config: its ``task`` and ``loss``.
    """
    task = TASKS[config.task]
    if not config.loss:
        return task
    return with_losses(task, bind("loss", config.loss))
