"""The sums of a record, from all processes that train one model together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autospec.recording.epoch_sums import EpochSums, Measured
from autospec.recording.leading_spectra import LeadingSpectra
from autospec.recording.packing import AT_ONCE, FEW
from autospec.recording.processes import Processes
from autospec.spectra.joint_sums import LayerFacts, LayerJoint, facts_of, joined


def join(sums: EpochSums, processes: Processes, share: float, told: Any = None, is_parted: bool = False) -> list[Any]:
    """Replace the sums of one process by those of all; every process has the same afterwards.

    Args:
        sums: those of this process's samples since the last record; it may have had none.
        processes: that train together.
        share: what a process's loss counts in what is minimised: 1 / processes where gradients are averaged, 1 where
            they are added up. So the groups' gradients add up to the one that the optimizer gets.
        told: something small that travels along.
        is_parted: whether a large gradient is for the process alone that takes its spectra; the others have it no more.

    Returns:
        What every process told.

    Raises:
        AutoSpecError: where what the processes recorded does not fit together.
        LostProcess: where another process is gone.
    """
    own_facts = {name: facts_of(layer) for name, layer in sums.layers.items()}
    of_processes = processes.gather((own_facts, sums.facts(), told), "facts")
    sums.begin_uses([name for layers, *_ in of_processes for name in layers])
    sums.take_facts([own for _, own, _ in of_processes], share)
    facts = {name: _joined([layers for layers, *_ in of_processes], name) for name in sums.layers}
    arrived = {name: one for name, one in sorted(facts.items()) if one.arrived}
    are_brought = is_parted and processes.size <= FEW and _numbers(sums, arrived) > AT_ONCE
    joints = {name: LayerJoint(sums.layers[name], one, share, are_brought) for name, one in arrived.items()}
    summands = {name: joint.summands() for name, joint in joints.items()}
    owners = _owners(sums, processes) if is_parted else {}
    added = processes.add_up_for(
        [tensor for tensors in summands.values() for tensor in tensors],
        [
            owners.get(name) if joints[name].is_gradient(place) else None
            for name, tensors in summands.items()
            for place in range(len(tensors))
        ],
    )
    stacked = {name: [processes.gather_tensor(one) for one in joint.triangles()] for name, joint in joints.items()}
    brought = _brought(joints, owners, processes) if are_brought else {}
    start = 0
    for name, joint in joints.items():
        end = start + len(summands[name])
        joint.take(added[start:end], stacked[name], brought.get(name, ()))
        start = end
    return [told for *_, told in of_processes]


def _owners(sums: EpochSums, processes: Processes) -> dict[str, int]:
    return owners_of({name: layer.shape for name, layer in sums.layers.items()}, processes.size)


def _joined(of_processes: Sequence[dict[str, LayerFacts]], name: str) -> LayerFacts:
    return joined([layers[name] for layers in of_processes if name in layers], name)


def _numbers(sums: EpochSums, facts: Mapping[str, LayerFacts]) -> int:
    """How many numbers the gradients of some layers have."""
    return sum(math.prod(sums.layers[name].shape) * len(one.cells) * (1 + one.positions) for name, one in facts.items())


def _brought(
    joints: Mapping[str, LayerJoint], owners: Mapping[str, int], processes: Processes
) -> dict[str, list[list[Tensor] | None]]:
    """Every process's gradients of the layers that this one takes the spectra of; None for those of the others."""
    own = [(name, tensor) for name, joint in joints.items() for tensor in joint.brought()]
    found: dict[str, list[list[Tensor] | None]] = {name: [] for name in joints}
    of_processes = processes.bring([tensor for _, tensor in own], [owners[name] for name, _ in own])
    for (name, _), tensors in zip(own, of_processes, strict=True):
        found[name].append(tensors)
    return found


def measured_together(
    sums: EpochSums, processes: Processes, epoch: int, leading: int | None, certified: LeadingSpectra | None = None
) -> Measured:
    """Every quantity of a record whose sums are joined: each process takes the spectra of some layers, all have all.

    What is ``certified`` rests on the record before, which every process must be able to go on from: all take all.
    """
    if certified is not None:
        return sums.measured(epoch, leading, certified)
    own = {name for name, rank in _owners(sums, processes).items() if rank == processes.rank}
    found: Measured = {}
    for part in processes.gather(sums.measured(epoch, leading, own=own), "spectra"):
        found |= part
    return found


def owners_of(shapes: Mapping[str, tuple[int, int]], size: int) -> dict[str, int]:
    """Which process takes the spectra of which layer, so that all have about as much to do.

    Example:
        >>> owners_of({"a": (8, 8), "b": (8, 6), "c": (2, 2), "d": (4, 4)}, 2)
        {'a': 0, 'b': 1, 'd': 1, 'c': 1}
    """
    owners: dict[str, int] = {}
    work = [0] * size
    for name, (out, width) in sorted(shapes.items(), key=lambda item: (-_work(item[1]), item[0])):
        owners[name] = work.index(min(work))
        work[owners[name]] += _work((out, width))
    return owners


def _work(shape: tuple[int, int]) -> int:
    """What the spectra of a matrix cost, up to a factor: its Gram matrix."""
    return min(shape) ** 2 * max(shape)


def proportion(left: Tensor, got: Tensor) -> tuple[float, float]:
    """By how much ``left`` is larger than ``got``, and how far the two are from proportional, relative to ``left``."""
    left, got = left.double().flatten(), got.double().flatten()
    square = float(got @ got)
    if square == 0.0:
        return 0.0, float(torch.linalg.vector_norm(left) > 0)
    ratio = float(left @ got) / square
    return ratio, float(torch.linalg.vector_norm(left - ratio * got)) / max(
        float(torch.linalg.vector_norm(left)), 1e-300
    )
