"""A batch over several processes: each takes its share of the samples, and all the same step."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from autospec.errors import AutoSpecError
from autospec.experiments.training.samples import Samples
from autospec.experiments.training.tasks import Task
from autospec.recording.processes import Processes


class Shards:
    """This process's share of every batch, and sums over all shares.

    Args:
        model: the network; ``model`` is it in the wrapper that averages gradients.
        processes: that train it together.
    """

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        self.model = DistributedDataParallel(model)
        self._processes = processes
        self._samples = 0

    def of(self, batch: Samples) -> Samples:
        """This process's samples of a batch; AutoSpecError for a batch with fewer samples than there are processes."""
        size = self._processes.size
        if len(batch) < size:
            raise AutoSpecError(
                f"processes={size}: a batch has {len(batch)} sample(s), which are fewer; choose another batch_size"
            )
        self._samples = len(batch)
        chosen = torch.arange(self._processes.rank, len(batch), size, device=batch.inputs.device)
        own = batch.of(chosen)
        return own if batch.place is None else replace(own, place=batch.place[chosen])

    def objective(self, losses: Tensor) -> Tensor:
        """What to run backwards, so that the average over processes is the mean over the batch."""
        return losses.sum() * self.share

    @property
    def share(self) -> float:
        """What a sample's loss counts in this process's objective."""
        return self._processes.size / self._samples

    def loss_and_metric(
        self, task: Task, output: Tensor, losses: Tensor, own: Samples, mean: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The summed loss of the whole batch, and its metric."""
        terms = torch.stack([part.double() for part in task.metric_terms(output, own.inputs, own.target, mean)])
        sums = self._processes.add_up([torch.cat([losses.double().sum()[None], terms])])[0]
        return sums[0], 1 - sums[1] / sums[2]
