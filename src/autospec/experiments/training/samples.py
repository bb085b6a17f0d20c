"""Samples as the training loop takes them: tensors on the device that trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autospec.experiments.datasets.dataset import Dataset, Mask


@dataclass(frozen=True)
class Samples:
    """Samples on the device they are trained on.

    Attributes:
        inputs: (n, ...).
        target: (n,) the index of each sample's class.
        group: (n,) the index of each sample's group, -1 for none.
        place: (n,) which of all samples they are; None for all of them in order.
    """

    inputs: Tensor
    target: Tensor
    group: Tensor
    place: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def of(self, chosen: Tensor) -> Samples:
        """The samples at some places."""
        return Samples(self.inputs[chosen], self.target[chosen], self.group[chosen], chosen)


def samples_of(data: Dataset, chosen: Mask, device: str) -> Samples:
    """Return the chosen samples of a data set on a device.

    Args:
        data: the whole set.
        chosen: (n,) True for the samples that are wanted.
        device: cpu or cuda.
    """

    def on_device(values: Any) -> Tensor:
        return torch.from_numpy(values[chosen]).to(device)

    return Samples(on_device(data.inputs), on_device(data.target), on_device(data.group))
