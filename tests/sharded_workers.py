"""What the processes of ``ranks.on_ranks`` do with models in pieces (``fully_shard``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank_workers import SMALL, Case, losses_of, network, said_in
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from autospec import SpectralRecorder


def sharded(model: nn.Module, each: bool = True, **options: Any) -> nn.Module:
    """A model in pieces, every layer gathered by itself or all at once."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    options = {"mesh": init_device_mesh("cpu", (dist.get_world_size(),)), **options}
    for layer in model.children() if each else ():
        if any(True for _ in layer.parameters()):
            fully_shard(layer, **options)
    return fully_shard(model, **options)


def train(
    rank: int, case: Case, path: Path, wrap: Callable[[nn.Module], nn.Module] = sharded, after: Any = None
) -> list[Tensor]:
    """Train a model in pieces on one process's samples; the whole weights."""
    model = wrap(network(case))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with case.recorder(model, path) as recorder:
        for _ in range(case.epochs):
            total = 0.0
            for batch in range(len(case.shards)):
                is_last = not case.accumulate or batch == len(case.shards) - 1
                model.set_requires_gradient_sync(is_last)
                model.set_reshard_after_backward(is_last)
                with recorder.batch(torch.tensor(case.shards[batch][rank])) as heard:
                    losses = losses_of(model, case.inputs(batch, rank))
                    heard.losses(losses)
                    losses.mean().backward()
                if is_last:
                    if after is not None:
                        after(model)
                    optimizer.step()
                    optimizer.zero_grad()
                total += losses.mean().item()
            recorder.end_epoch(loss=total)
    return [parameter.detach().full_tensor().clone() for parameter in model.parameters()]


def _at_once(model: nn.Module) -> nn.Module:
    return sharded(model, each=False)


def _kept_whole(model: nn.Module) -> nn.Module:
    """Weights stay whole from a forward pass to the end of its backward."""
    return sharded(model, reshard_after_forward=False)


def _replicated(model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh

    return sharded(model, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard")))


class _Checkpointed(nn.Module):
    def __init__(self, network: nn.Module, use_reentrant: bool = False) -> None:
        super().__init__()
        self.network, self._use_reentrant = network, use_reentrant

    def forward(self, inputs: Tensor) -> Tensor:
        first, *rest = self.network
        return checkpoint(nn.Sequential(*rest), first(inputs), use_reentrant=self._use_reentrant)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "at once": _at_once,
    "kept whole": _kept_whole,
    "replicated": _replicated,
}


def train_all(rank: int, size: int, cases: dict[str, Case], folder: Path) -> dict[str, Any]:
    """Train every case in pieces, and the first of them in every wrapper; the weights of each."""
    first = next(iter(cases.values()))
    found = {name: train(rank, case, folder / f"{name}.h5") for name, case in cases.items()}
    return found | {name: train(rank, first, folder / f"{name}.h5", wrap) for name, wrap in WRAPPERS.items()}


def _checkpointed(rank: int, size: int, folder: Path) -> None:
    train(rank, SMALL, folder / "checkpointed.h5", lambda model: sharded(_Checkpointed(model), each=False))


def _clipped(rank: int, size: int, folder: Path) -> None:
    train(rank, SMALL, folder / "clipped.h5", after=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.1))


def _added(rank: int, size: int, folder: Path) -> None:
    def summing(model: nn.Module) -> nn.Module:
        model = sharded(model)
        for module in model.modules():
            if hasattr(module, "set_gradient_divide_factor"):
                module.set_gradient_divide_factor(1.0)
        return model

    train(rank, SMALL, folder / "added.h5", summing)


def _half(rank: int, size: int, folder: Path) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    case = Case(SMALL.shards, statistics=("gradient",), dtype=torch.float32, settings=(("floor", "formula"),))
    train(rank, case, folder / "half.h5", lambda model: sharded(model, mp_policy=policy))


def _default_floor(rank: int, size: int, folder: Path) -> str:
    recorder = SpectralRecorder(sharded(network(SMALL).float()), groups=["a"])
    return str(recorder._header.layers["0"]["gradient_floor"])


def _refused(**options: Any) -> Callable[..., None]:
    def make(rank: int, size: int, folder: Path) -> None:
        SpectralRecorder(sharded(network(SMALL)), groups=["a"], **options)

    return make


def _no_samples(rank: int, size: int, folder: Path) -> None:
    with SpectralRecorder(sharded(network(SMALL)), groups=["a"]).batch([]):
        raise AssertionError("there is no sample")


def _table(rank: int, size: int, folder: Path) -> None:
    SpectralRecorder(sharded(network(SMALL)), groups=["a"]).check(torch.zeros(3, 6))


def _compiled(rank: int, size: int, folder: Path) -> None:
    SpectralRecorder(torch.compile(sharded(network(SMALL))), groups=["a"])


def _tensor_parallel(rank: int, size: int, folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    parallelize_module(model := network(SMALL), init_device_mesh("cpu", (size,)), {"0": ColwiseParallel()})
    SpectralRecorder(model, groups=["a"])


class FullyShardedDataParallel(nn.Module):
    """Of the name of the wrapper that flattens weights."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def _flattened(rank: int, size: int, folder: Path) -> None:
    SpectralRecorder(FullyShardedDataParallel(network(SMALL)), groups=["a"])


class _Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 6))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight.T


def _by_functions(rank: int, size: int, folder: Path) -> None:
    SpectralRecorder(sharded(_Bare()), groups=["a"])


SITUATIONS: dict[str, Callable[..., Any]] = {
    "checkpointed": _checkpointed,
    "clipped": _clipped,
    "added": _added,
    "half": _half,
    "default floor": _default_floor,
    "engine": _refused(engine="fast"),
    "floor": _refused(floor="measured"),
    "apart": _refused(process_group=False),
    "no samples": _no_samples,
    "table": _table,
    "compiled": _compiled,
    "tensor parallel": _tensor_parallel,
    "flattened": _flattened,
    "by functions": _by_functions,
}


def situations(rank: int, size: int, folder: Path) -> dict[str, Any]:
    """What the recorder says of models in pieces that it does not serve, and of others."""
    return said_in(SITUATIONS, rank, size, folder)


def reentrant(rank: int, size: int, folder: Path) -> None:
    """A checkpoint whose passes cannot be repeated."""
    train(rank, SMALL, folder / "reentrant.h5", lambda model: sharded(_Checkpointed(model, True), each=False))
