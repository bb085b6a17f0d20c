"""The sums of a record, from all processes that train one model together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autospec.recording.epoch_sums import EpochSums, Measured
from autospec.recording.leading_spectra import LeadingSpectra
from autospec.recording.processes import Processes
from autospec.spectra.joint_sums import LayerFacts, LayerJoint, facts_of, joined


def join(sums: EpochSums, processes: Processes, share: float) -> None:
    """Replace the sums of one process by those of all; every process has the same afterwards.

    Args:
        sums: those of this process's samples since the last record; it may have had none.
        processes: that train together.
        share: what a process's loss counts in what is minimised: 1 / processes where gradients are averaged, 1 where
            they are added up. So the groups' gradients add up to the one that the optimizer gets.

    Raises:
        AutoSpecError: where what the processes recorded does not fit together.
        LostProcess: where another process is gone.
    """
    of_processes = processes.gather(({name: facts_of(layer) for name, layer in sums.layers.items()}, sums.facts()))
    sums.begin_uses([name for layers, _ in of_processes for name in layers])
    facts = {name: _joined([layers for layers, _ in of_processes], name) for name in sums.layers}
    joints = {name: LayerJoint(sums.layers[name], one, share) for name, one in sorted(facts.items()) if one.arrived}
    summands = {name: joint.summands() for name, joint in joints.items()}
    counted = list(sums.counted(share))
    added = processes.add_up([*counted, *(tensor for tensors in summands.values() for tensor in tensors)])
    sums.take_counted(added[: len(counted)], [own for _, own in of_processes])
    _take(joints, {name: len(tensors) for name, tensors in summands.items()}, added[len(counted) :], processes)


def _joined(of_processes: Sequence[dict[str, LayerFacts]], name: str) -> LayerFacts:
    return joined([layers[name] for layers in of_processes if name in layers], name)


def _take(
    joints: dict[str, LayerJoint], lengths: dict[str, int], added: Sequence[Tensor], processes: Processes
) -> None:
    """Hand every layer its part of what was added up, and the triangles of all processes."""
    start = 0
    for name, joint in joints.items():
        end = start + lengths[name]
        stacked = [processes.gather_tensor(triangles) for triangles in joint.triangles()]
        joint.take(added[start:end], stacked)
        start = end


def measured_together(
    sums: EpochSums, processes: Processes, epoch: int, leading: int | None, certified: LeadingSpectra | None = None
) -> Measured:
    """Every quantity of a record whose sums are joined: each process takes the spectra of some layers, all have all.

    What is ``certified`` rests on the record before, which every process must be able to go on from: all take all.
    """
    if certified is not None:
        return sums.measured(epoch, leading, certified)
    owners = owners_of({name: layer.shape for name, layer in sums.layers.items()}, processes.size)
    own = {name for name, rank in owners.items() if rank == processes.rank}
    found: Measured = {}
    for part in processes.gather(sums.measured(epoch, leading, own=own)):
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


def agreed_refusal(refusal: str, processes: Processes) -> str:
    """What stood in the way of a measurement in the first process that was refused one, or ""."""
    return next((other for other in processes.gather(refusal) if other), "")


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
