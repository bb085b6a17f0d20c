"""The training loop, with a recorder listening; knows neither configuration files nor folders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from autospec.errors import AutoSpecError
from autospec.experiments.training.samples import Samples
from autospec.experiments.training.shards import Shards
from autospec.experiments.training.tasks import Task
from autospec.recording.recorder import SpectralRecorder


class Training:
    """One run's moving parts: network, optimizer, order of samples, recorder.

    ``state_dict`` and ``load_state_dict`` hold all that a continued run needs to give the numbers of an undisturbed
    one, but for the process's random state.

    Args:
        model: the network, on the device of the samples.
        task: its loss and metric.
        samples: what it is trained on.
        validation: what it is only measured on after each epoch, where anything is held out.
        recorder: listens to the network.
        optimizer: of the network's parameters.
        schedule: of its learning rate, stepped after each epoch; None keeps the rate.
        batch_size: samples in a batch; None is the full batch.
        seed: of the order of samples.
        shards: where several processes train the network together.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        samples: Samples,
        validation: Samples | None,
        recorder: SpectralRecorder,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None,
        batch_size: int | None,
        seed: int,
        shards: Shards | None = None,
    ) -> None:
        self.model = model
        self.task = task
        self.samples = samples
        self.validation = validation
        self.recorder = recorder
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.schedule = schedule
        self.order = torch.Generator().manual_seed(seed)
        self.mean = samples.inputs.mean(0, keepdim=True)
        self._shards = shards

    @property
    def epoch(self) -> int:
        """The number of epochs done."""
        return self.recorder.epoch

    def epochs_until(self, epochs: int) -> Iterator[float]:
        """Train up to a number of epochs, each when it is asked for.

        Args:
            epochs: the number of epochs of the whole run.

        Yields:
            The mean loss of each epoch, once it is recorded.

        Raises:
            AutoSpecError: at a loss that is not a number, after storing that epoch.
        """
        while self.epoch < epochs:
            epoch = self.epoch
            loss = self._one_epoch()
            if not math.isfinite(loss):
                raise AutoSpecError(
                    f"the loss is {loss} at epoch {epoch}; stopped, and kept what was recorded. "
                    "A smaller learning_rate may help"
                )
            yield loss

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds; the recorder's file is written first, so that it is never behind."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "recorder": self.recorder.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.set_state(state["order"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.recorder.load_state_dict(state["recorder"])

    def _one_epoch(self) -> float:
        """Train for an epoch and record it; the mean loss over its samples."""
        self.model.train()
        loss_sum = self.mean.new_zeros((), dtype=torch.float64)
        metric_sum = torch.zeros_like(loss_sum)
        for batch in self._batches():
            if self._shards is not None:
                loss_of_batch, metric = self._one_shared_batch(batch, self._shards)
                loss_sum += loss_of_batch
                metric_sum += len(batch) * metric
                continue
            with self.recorder.batch(batch.group, batch.place) as recorded:
                output = self.model(batch.inputs)
                losses = self.task.losses(output, batch.inputs, batch.target)
                losses.mean().backward()
                recorded.losses(losses)
            # after the context: what the recorder refuses must not have changed the weights
            self.optimizer.step()
            self.optimizer.zero_grad()
            with torch.no_grad():
                loss_sum += losses.double().sum()
                metric_sum += len(batch) * self.task.metric(output, batch.inputs, batch.target, self.mean)
        if self.schedule:
            self.schedule.step()
        # one look at the sums an epoch: each would make a GPU wait
        loss = loss_sum.item() / len(self.samples)
        self.recorder.end_epoch(loss, metric_sum.item() / len(self.samples), *self._validate())
        return loss

    def _one_shared_batch(self, batch: Samples, shards: Shards) -> tuple[Tensor, Tensor]:
        """One optimizer step on this process's samples of a batch; the whole batch's summed loss, and its metric."""
        own = shards.of(batch)
        weight = torch.full((len(own),), shards.share, dtype=torch.float64)
        with self.recorder.batch(own.group, own.place, weight=weight) as recorded:
            output = shards.model(own.inputs)
            losses = self.task.losses(output, own.inputs, own.target)
            shards.objective(losses).backward()
            recorded.losses(losses)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            return shards.loss_and_metric(self.task, output, losses, own, self.mean)

    def _batches(self) -> Iterator[Samples]:
        """The whole set as one batch, or shuffled batches."""
        if self.batch_size is None or self.batch_size >= len(self.samples):
            yield self.samples
            return
        order = torch.randperm(len(self.samples), generator=self.order)
        for chosen in order.split(self.batch_size):
            yield self.samples.of(chosen.to(self.samples.inputs.device))

    def _validate(self) -> tuple[float, float] | tuple[None, None]:
        """Loss and metric of the held-out samples, where there are any."""
        if self.validation is None:
            return None, None
        self.model.eval()
        samples = self.validation
        with torch.no_grad():
            output = self.model(samples.inputs)
            loss = self.task.losses(output, samples.inputs, samples.target).mean().item()
            metric = self.task.metric(output, samples.inputs, samples.target, self.mean).item()
        return loss, metric
