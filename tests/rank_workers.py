"""What the processes of ``ranks.on_ranks`` do, and the same in one process on all samples at once."""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from autospec import AutoSpecError, SpectralRecorder
from autospec.recording import joint_epoch

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
    joins: bool = False
    epochs: int | None = 3
    every: int = 1
    settings: tuple[tuple[str, Any], ...] = ()

    def inputs(self, batch: int, rank: int) -> Tensor:
        generator = torch.Generator().manual_seed(100 * batch + rank)
        shape = {"mlp": (6,), "wide": (6,), "narrow": (6,), "conv": (2, 9), "sequence": (5, 6)}[self.model]
        return torch.randn((len(self.shards[batch][rank]), *shape), generator=generator, dtype=self.dtype)

    def recorder(self, model: nn.Module, path: Path, **others: Any) -> SpectralRecorder:
        settings = {"statistics": self.statistics, "every": self.every, "epochs": self.epochs, **dict(self.settings)}
        return SpectralRecorder(model, path, groups=GROUPS, margins={"a or b": ["a", "b"]}, **settings, **others)


def network(case: Case) -> nn.Module:
    torch.manual_seed(1)
    if case.model == "mlp":
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6)).to(case.dtype)
    if case.model == "narrow":
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)).to(case.dtype)
    if case.model == "wide":
        return nn.Sequential(nn.Linear(6, 200), nn.Tanh(), nn.Linear(200, 120), nn.Tanh(), nn.Linear(120, 6)).to(
            case.dtype
        )
    if case.model == "sequence":
        return Attentive().to(case.dtype)
    return nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Conv1d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(30, 4)
    ).to(case.dtype)


class Attentive(nn.Module):
    """Layers whose rules look at their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.LSTM(6, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        steps = self.steps(inputs)[0]
        return self.head(self.attention(steps, steps, steps)[0].mean(1))


def losses_of(model: nn.Module, inputs: Tensor) -> Tensor:
    return (model(inputs) - inputs.flatten(1)[:, :1]).square().flatten(1).mean(1)


def train_shard(rank: int, size: int, case: Case, path: Path, wrapped: bool = True) -> list[Tensor]:
    """Train on one process's samples under DDP; its weights."""
    model: nn.Module = DistributedDataParallel(network(case)) if wrapped else network(case)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with case.recorder(model, path) as recorder:
        for _ in range(case.epochs):
            total = 0.0
            with model.join() if case.joins else contextlib.nullcontext():
                for batch in [batch for batch, shards in enumerate(case.shards) if shards[rank]]:
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
                shares = [(len(own), 1 / (size * max(len(own), 1))) for own in shards]
                weight = torch.cat([torch.full((count,), share, dtype=case.dtype) for count, share in shares])
                inputs = torch.cat([case.inputs(batch, rank) for rank in range(size)])
                share = float(weight.sum())  # below 1 where a process has no samples
                with recorder.batch(torch.tensor(sum(shards, ())), weight=weight, share=share) as heard:
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


def said_in(situations: dict[str, Any], rank: int, size: int, folder: Path) -> dict[str, Any]:
    """What each situation returns, the warnings of one that returns nothing, and the line of one that is refused."""
    found: dict[str, Any] = {}
    for name, situation in situations.items():
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found[name] = situation(rank, size, folder)
            found[name] = [str(one.message) for one in said] if found[name] is None else found[name]
        except AutoSpecError as error:
            found[name] = str(error)
    return found


SMALL = Case((((0, 1, 1), (0, 0, 1)),), statistics=("gradient",))


def raise_in_the_middle(rank: int, size: int, folder: Path) -> None:
    """The second process raises inside its third batch."""
    model = DistributedDataParallel(network(SMALL))
    with replace(SMALL, epochs=6).recorder(model, folder / "spectra.h5") as recorder:
        for step in range(6):
            with recorder.batch(torch.tensor(SMALL.shards[0][rank])):
                losses = losses_of(model, SMALL.inputs(0, rank))
                if step == 2 and rank == 1:
                    raise ValueError("the data are not what they were")
                losses.mean().backward()
            recorder.end_epoch()


def train_some(rank: int, size: int, case: Case, path: Path) -> str | None:
    """The last two of three processes train together; the first is not one of them."""
    group = dist.new_group([1, 2])
    if rank == 0:
        try:
            case.recorder(network(case), path, process_group=group)
        except AutoSpecError as error:
            return str(error)
        return "made"
    model = DistributedDataParallel(network(case), process_group=group)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with case.recorder(model, path) as recorder:
        for _ in range(case.epochs or 0):
            with recorder.batch(torch.tensor(case.shards[0][rank - 1])) as heard:
                losses = losses_of(model, case.inputs(0, rank - 1))
                heard.losses(losses)
                losses.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.end_epoch(loss=losses.mean().item())
    return None


def train_either_way(rank: int, size: int, case: Case, folder: Path) -> dict[str, tuple[int, int]]:
    """Train with gradients brought to one process each, and added up between all; messages and bytes of a record."""
    sent = {}
    for name, few in (("brought", joint_epoch.FEW), ("added", 1)):
        joint_epoch.FEW = few
        model = DistributedDataParallel(network(case))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with case.recorder(model, folder / f"{name}.h5") as recorder:
            for _ in range(case.epochs or 0):
                before = replace(recorder._meeting.processes.traffic)
                with recorder.batch(torch.tensor(case.shards[0][rank])):
                    losses_of(model, case.inputs(0, rank)).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                recorder.end_epoch()
                now = recorder._meeting.processes.traffic
                # those of the last record count: at the first, what is compared travels too
                sent[name] = (now.messages - before.messages, now.bytes - before.bytes)
    return sent


def stop_in_the_middle(rank: int, size: int, folder: Path) -> None:
    """The second process is killed at its third step."""
    model = DistributedDataParallel(network(SMALL))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with replace(SMALL, epochs=6).recorder(model, folder / "spectra.h5") as recorder:
        for step in range(6):
            if step == 3 and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            with recorder.batch(torch.tensor(SMALL.shards[0][rank])):
                losses_of(model, SMALL.inputs(0, rank)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.end_epoch()
            recorder.write()
