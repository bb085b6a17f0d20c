"""What the processes of ``ranks.on_ranks`` do, and the same in one process on all samples at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from autospec import SpectralRecorder

GROUPS = ["a", "b", "c"]
EVERYTHING = ("gradient", "activation", "adjoint", "rank", "subspace")


@dataclass(frozen=True)
class Case:
    """One training run: ``shards[batch][rank]`` are the labels of the samples of one process in one batch."""

    shards: tuple[tuple[tuple[int, ...], ...], ...]
    model: str = "mlp"
    statistics: Sequence[str] = EVERYTHING
    dtype: torch.dtype = torch.float64
    accumulate: bool = False
    epochs: int = 3
    every: int = 1
    settings: tuple[tuple[str, Any], ...] = ()

    def inputs(self, batch: int, rank: int) -> Tensor:
        generator = torch.Generator().manual_seed(100 * batch + rank)
        shape = (len(self.shards[batch][rank]), 6) if self.model == "mlp" else (len(self.shards[batch][rank]), 2, 9)
        return torch.randn(shape, generator=generator, dtype=self.dtype)

    def recorder(self, model: nn.Module, path: Path, **others: Any) -> SpectralRecorder:
        settings = {"statistics": self.statistics, "every": self.every, "epochs": self.epochs, **dict(self.settings)}
        return SpectralRecorder(model, path, groups=GROUPS, margins={"a or b": ["a", "b"]}, **settings, **others)


def network(case: Case) -> nn.Module:
    torch.manual_seed(1)
    if case.model == "mlp":
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6)).to(case.dtype)
    return nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Conv1d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(30, 4)
    ).to(case.dtype)


def losses_of(model: nn.Module, inputs: Tensor) -> Tensor:
    return (model(inputs) - inputs.flatten(1)[:, :1]).square().flatten(1).mean(1)


def train_shard(rank: int, size: int, case: Case, path: Path, wrapped: bool = True) -> list[Tensor]:
    """Train on one process's samples under DDP; its weights."""
    model: nn.Module = DistributedDataParallel(network(case)) if wrapped else network(case)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with case.recorder(model, path) as recorder:
        for _ in range(case.epochs):
            total = 0.0
            for batch in range(len(case.shards)):
                is_last = not case.accumulate or batch == len(case.shards) - 1
                labels = torch.tensor(case.shards[batch][rank])
                waiting = model.no_sync() if wrapped and not is_last else torch.enable_grad()
                with waiting, recorder.batch(labels) as heard:
                    losses = losses_of(model, case.inputs(batch, rank))
                    heard.losses(losses)
                    losses.mean().backward()
                if is_last:
                    optimizer.step()
                    optimizer.zero_grad()
                total += losses.mean().item()
            recorder.end_epoch(loss=total)
    return [parameter.detach().clone() for parameter in model.parameters()]


def train_whole(case: Case, size: int, path: Path) -> list[Tensor]:
    """Train on all processes' samples in one; each sample counts what it counts in DDP's average of means."""
    model = network(case)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with case.recorder(model, path) as recorder:
        for _ in range(case.epochs):
            total = 0.0
            for batch, shards in enumerate(case.shards):
                weight = torch.cat(
                    [torch.full((len(own),), 1 / (size * len(own)), dtype=case.dtype) for own in shards]
                )
                inputs = torch.cat([case.inputs(batch, rank) for rank in range(size)])
                with recorder.batch(torch.tensor(sum(shards, ())), weight=weight) as heard:
                    losses = losses_of(model, inputs)
                    heard.losses(losses)
                    (losses * weight).sum().backward()
                if not case.accumulate or batch == len(case.shards) - 1:
                    optimizer.step()
                    optimizer.zero_grad()
                total += (losses * weight).sum().item()
            recorder.end_epoch(loss=total)
    return [parameter.detach().clone() for parameter in model.parameters()]


def train_shards(rank: int, size: int, cases: dict[str, Case], folder: Path) -> dict[str, list[Tensor]]:
    """Train every case; the weights of each."""
    return {name: train_shard(rank, size, case, folder / f"{name}.h5") for name, case in cases.items()}
