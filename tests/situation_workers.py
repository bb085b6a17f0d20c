"""What two processes that do not fit together, or train in other ways than the plain one, are told and record."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank_workers import SMALL, losses_of, network, said_in, train_shard
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from autospec import AutoSpecError, SpectralRecorder


def _by_hand(rank: int, size: int, folder: Path, reduce_op: Any, name: str) -> list[str] | None:
    """Train a bare module whose gradients are added up by hand, or not at all."""
    model = network(SMALL)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SMALL.recorder(model, folder / name) as recorder:
        for _ in range(SMALL.epochs):
            with recorder.batch(torch.tensor(SMALL.shards[0][rank])):
                losses_of(model, SMALL.inputs(0, rank)).mean().backward()
            if reduce_op is not None:
                for parameter in model.parameters():
                    dist.all_reduce(parameter.grad, op=reduce_op)
            if name == "clipped.h5":
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            recorder.end_epoch()
    return None


def _apart(rank: int, size: int, folder: Path) -> list[float]:
    """Two processes that each train a model of their own."""
    model = network(SMALL)
    with SMALL.recorder(model, folder / f"own_{rank}.h5", process_group=False) as recorder:
        with recorder.batch(torch.tensor(SMALL.shards[0][rank])):
            losses_of(model, SMALL.inputs(0, rank)).mean().backward()
        recorder.end_epoch()
    return float(recorder.spectra["0"].gradient.sel(group="all", index=1)[0])


def _other_groups(rank: int, size: int, folder: Path) -> None:
    SpectralRecorder(network(SMALL), groups=["a", "b"] if rank else ["a", "c"])


def _no_batch(rank: int, size: int, folder: Path) -> None:
    SMALL.recorder(network(SMALL), folder / "none.h5").end_epoch()


def _one_without_batch(rank: int, size: int, folder: Path) -> float:
    model = network(SMALL)
    with SMALL.recorder(model, folder / "one_without.h5", floor="formula") as recorder:
        if rank:
            with recorder.batch(torch.tensor([0, 1, 1])):
                losses_of(model, SMALL.inputs(0, 0)).mean().backward()
        recorder.end_epoch(loss=4.0 if rank else None, metric=float(rank))
    training = recorder.spectra.to_frame()
    assert not training.empty
    return float(recorder.spectra["0"].gradient.sel(group="all", index=1)[0])


def _engine(rank: int, size: int, folder: Path) -> None:
    SpectralRecorder(network(SMALL), groups=["a"], engine="fast")


def _rows(rank: int, size: int, folder: Path) -> None:
    SpectralRecorder(network(SMALL), groups=["a"], statistics=["gradient", "diffusion_entropy"])


def _permutations(rank: int, size: int, folder: Path) -> None:
    SpectralRecorder(network(SMALL), groups=["a", "b"], permutations=19, target_is_group=False)


def _float32(rank: int, size: int, folder: Path) -> float:
    case = replace(SMALL, dtype=torch.float32)
    train_shard(rank, size, case, folder / "float32.h5")
    return 0.0


def _ddp_clipped(rank: int, size: int, folder: Path) -> list[str] | None:
    """The inner module is given, as trainers do; its wrapper is found, and clipping is no riddle."""
    model = network(SMALL)
    wrapper = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SMALL.recorder(model, folder / "inner.h5") as recorder:
        for _ in range(SMALL.epochs):
            with recorder.batch(torch.tensor(SMALL.shards[0][rank])):
                losses_of(wrapper, SMALL.inputs(0, rank)).mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            recorder.end_epoch()
    return None


def _steps(model: nn.Module, path: Path, inputs: Tensor, labels: Tensor, scaling: Any = None, **options: Any) -> None:
    """A few steps of plain training under the recorder."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SMALL.recorder(model, path, **options) as recorder:
        for _ in range(SMALL.epochs or 0):
            with recorder.batch(labels):
                loss = losses_of(model, inputs).mean()
                (loss if scaling is None else scaling.scale(loss)).backward()
            optimizer.step() if scaling is None else scaling.step(optimizer)
            if scaling is not None:
                scaling.update()
            optimizer.zero_grad()
            recorder.end_epoch()


def _compressed(rank: int, size: int, folder: Path) -> None:
    """A communication hook that rounds to half precision."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

    model = DistributedDataParallel(network(SMALL))
    model.register_comm_hook(None, fp16_compress_hook)
    _steps(model, folder / "fp16.h5", SMALL.inputs(0, rank), torch.tensor(SMALL.shards[0][rank]))


def _lossy(rank: int, size: int, folder: Path) -> None:
    """A communication hook that sends one direction of each gradient."""
    from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

    model = DistributedDataParallel(network(SMALL))
    state = powerSGD_hook.PowerSGDState(
        None, matrix_approximation_rank=1, start_powerSGD_iter=2, min_compression_rate=0.1
    )
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    for _ in range(3):  # in full, to begin with
        losses_of(model, SMALL.inputs(0, rank)).mean().backward()
        model.zero_grad()
    _steps(model, folder / "lossy.h5", SMALL.inputs(0, rank), torch.tensor(SMALL.shards[0][rank]))


def _scaled(rank: int, size: int, folder: Path) -> None:
    """A GradScaler that the recorder is not told of."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    model, labels = DistributedDataParallel(network(SMALL)), torch.tensor(SMALL.shards[0][rank])
    _steps(model, folder / "told.h5", SMALL.inputs(0, rank), labels, scaler, scaler=scaler)
    _steps(model, folder / "untold.h5", SMALL.inputs(0, rank), labels, scaler)


def _divided(rank: int, size: int, folder: Path) -> None:
    model = DistributedDataParallel(network(SMALL))
    with model.join(divide_by_initial_world_size=False):
        _steps(model, folder / "divided.h5", SMALL.inputs(0, rank), torch.tensor(SMALL.shards[0][rank]))


def _no_samples(rank: int, size: int, folder: Path) -> None:
    """A process whose shard is empty makes its pass outside of the recorder's batch."""
    model = DistributedDataParallel(network(SMALL))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SMALL.recorder(model, folder / "no_samples.h5") as recorder:
        for _ in range(2):
            with recorder.batch(torch.tensor([0, 1, 1])) if rank else contextlib.nullcontext():
                losses_of(model, SMALL.inputs(0, 0)[: 3 * rank]).sum().div(3).backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.end_epoch()


def _empty(rank: int, size: int, folder: Path) -> None:
    with SpectralRecorder(network(SMALL), groups=["a"]).batch(torch.zeros(0, dtype=torch.int64)):
        raise AssertionError("there is no sample")


class _Branches(nn.Module):
    """The second branch is used where there are more than three samples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Linear(6, 5).double(), nn.Linear(6, 5).double()

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.first(inputs)
        return found + self.second(inputs) if len(inputs) > 3 else found


def _unused_by_one(rank: int, size: int, folder: Path) -> float:
    """A layer that one process does not use; the first singular value of its gradient by hand."""
    case = replace(SMALL, shards=(((0, 1, 1, 2), (0, 0, 1)),))
    own, alone = _Branches(), _Branches()
    losses_of(alone, case.inputs(0, 0)).mean().backward()
    model = DistributedDataParallel(own, find_unused_parameters=True)
    _steps(model, folder / "unused_by_one.h5", case.inputs(0, rank), torch.tensor(case.shards[0][rank]))
    return float(torch.linalg.svdvals(alone.second.weight.grad)[0]) / size


def _told_between(rank: int, size: int, folder: Path) -> list[Any]:
    """Messages at each of six epochs, of which every third is recorded; then a loss where nobody waits for it."""
    model = DistributedDataParallel(network(SMALL))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found: list[Any] = []
    with replace(SMALL, every=3, epochs=None).recorder(model, folder / "between.h5") as recorder:
        for loss in (None, None, None, 2.0 + rank, 4.0 + rank, None, None, None, 1.0):
            before = recorder._meeting.processes.traffic.messages
            with recorder.batch(torch.tensor(SMALL.shards[0][rank])):
                losses_of(model, SMALL.inputs(0, rank)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            try:
                recorder.end_epoch(loss=loss)
            except AutoSpecError as error:
                found.append(str(error))
                break
            found.append(recorder._meeting.processes.traffic.messages - before)
        losses = recorder.spectra.training["training_loss"].tolist()
    return [found, losses]


def _unused(rank: int, size: int, folder: Path) -> list[str] | None:
    """DDP that looks for weights without a gradient, and a graph that stays."""
    case = replace(SMALL, dtype=torch.float32)
    for name, options in {"unused": {"find_unused_parameters": True}, "static": {"static_graph": True}}.items():
        model = DistributedDataParallel(network(case), gradient_as_bucket_view=True, **options)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with case.recorder(model, folder / f"{name}.h5", floor="formula") as recorder:
            for _ in range(case.epochs):
                with recorder.batch(torch.tensor(case.shards[0][rank])):
                    losses_of(model, case.inputs(0, rank)).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                recorder.end_epoch()
    return None


SITUATIONS = {
    "added": lambda *a: _by_hand(*a, dist.ReduceOp.SUM, "added.h5"),
    "clipped": lambda *a: _by_hand(*a, dist.ReduceOp.SUM, "clipped.h5"),
    "clipped in a wrapper": _ddp_clipped,
    "not exchanged": lambda *a: _by_hand(*a, None, "apart.h5"),
    "apart": _apart,
    "other groups": _other_groups,
    "no batch": _no_batch,
    "one without a batch": _one_without_batch,
    "another engine": _engine,
    "rows": _rows,
    "permutations": _permutations,
    "float32": _float32,
    "ddp options": _unused,
    "told between": _told_between,
    "compressed": _compressed,
    "lossy": _lossy,
    "scaled": _scaled,
    "divided": _divided,
    "no samples": _no_samples,
    "empty": _empty,
    "unused by one": _unused_by_one,
}


def situations(rank: int, size: int, folder: Path) -> dict[str, Any]:
    """What the recorder says, or does, of several processes that do not fit together, or of other wrappers."""
    return said_in(SITUATIONS, rank, size, folder)
