"""What is recorded of a model whose weights are held in pieces (``fully_shard``), and what is refused by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from autospec.capture.engines import HOOKS
from autospec.capture.hooks import is_compiled
from autospec.capture.pieces import is_piece, sharded_modules
from autospec.capture.trace_passes import Tracer
from autospec.errors import AutoSpecError
from autospec.spectra.settings import CALIBRATED, FORMULA

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from autospec.recording.processes import Processes

_INSTEAD = "use torch.distributed.fsdp.fully_shard, or torch.nn.parallel.DistributedDataParallel"


def floor_of(model: nn.Module, engine: str) -> str:
    """How the noise floor is had where nothing is asked for."""
    # measuring a floor costs what the engines beside hooks are chosen to save
    return CALIBRATED if engine == HOOKS and not sharded_modules(model) else FORMULA


def refuse_unserved(model: nn.Module, engine: str | Mapping[str, str], floor: str | None, process_group: Any) -> None:
    """AutoSpecError for weights in pieces that are not recorded, and for what cannot be had of them, by name."""
    for module in model.modules():
        kind = type(module).__name__
        if kind == "FullyShardedDataParallel":
            raise AutoSpecError(f"{kind}: each process holds a piece of flattened weights; {_INSTEAD}")
    _refuse_placements(model)
    if not sharded_modules(model):
        return
    if engine != HOOKS:
        raise AutoSpecError(f"engine={engine!r} makes passes that fully_shard does not see; use engine='hooks'")
    if floor not in (None, FORMULA):
        raise AutoSpecError(
            f"floor={floor!r} repeats batches on a copy of the model, and there is none of weights in pieces "
            "(fully_shard); use floor='formula'"
        )
    if process_group is False:
        raise AutoSpecError("process_group=False: processes that hold pieces of one model (fully_shard) train together")
    if is_compiled(model):
        raise AutoSpecError("fully_shard and torch.compile together are not recorded; leave out one of the two")


def _refuse_placements(model: nn.Module) -> None:
    """AutoSpecError for DTensors that ``fully_shard`` alone did not make, and weights that wait on another device."""
    if "torch.distributed.tensor" not in sys.modules:
        return
    own = {id(parameter) for module in sharded_modules(model) for parameter in module.parameters()}
    for name, parameter in model.named_parameters():
        if not is_piece(parameter):
            continue
        mesh: Any = parameter.device_mesh  # type: ignore[attr-defined]
        placements: Any = parameter.placements  # type: ignore[attr-defined]
        is_data_parallel = mesh.ndim == 1 or (mesh.ndim == 2 and placements[0].is_replicate())
        if id(parameter) not in own or not is_data_parallel:
            raise AutoSpecError(
                f"{name!r} is a DTensor that fully_shard alone did not make (tensor parallel); {_INSTEAD}"
            )
        refuse_offloaded(name, parameter.device.type, mesh.device_type)


def refuse_offloaded(name: str, held_on: str, runs_on: str) -> None:
    """AutoSpecError for a weight that is held on another kind of device than it runs on."""
    if held_on != runs_on:
        raise AutoSpecError(
            f"{name!r} is held on {held_on} and runs on {runs_on} (CPUOffloadPolicy), which is not recorded; leave "
            "out offload_policy="
        )


def refuse_no_samples(group: Tensor | npt.ArrayLike) -> None:
    """AutoSpecError for a batch of a model in pieces of which this process has no sample."""
    if not (group.numel() if isinstance(group, Tensor) else np.size(group)):
        raise AutoSpecError(
            "group labels are of no sample: of weights in pieces (fully_shard) rows are traced in all processes at "
            "once, so that each needs a sample in every recorded batch; leave such a batch out in all (drop_last)"
        )


def sharding_group(model: nn.Module) -> ProcessGroup | None:
    """The processes that a model's pieces lie in, where they are a part of all; AutoSpecError where that is unclear."""
    import torch.distributed as dist

    meshes: list[Any] = [p.device_mesh for p in model.parameters() if is_piece(p)]  # type: ignore[attr-defined]
    if not meshes or max(mesh.size() for mesh in meshes) == dist.get_world_size():
        return None
    if any(mesh.ndim > 1 for mesh in meshes) or len({mesh.size() for mesh in meshes}) > 1:
        raise AutoSpecError(
            "fully_shard on a mesh of some of the processes: say by SpectralRecorder(..., process_group=...) which "
            "train together"
        )
    return meshes[0].get_group()


def prove_together(tracer: Tracer, model: nn.Module, processes: Processes | None) -> None:
    """Have rows traced in all processes at once, where tracing gathers weights."""
    if sharded_modules(model):
        tracer.any_wants = bool if processes is None else processes.any
