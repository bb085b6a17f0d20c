"""The processes that train one model together, each on a shard of the samples (``torch.distributed``).

Group gradients, Gram matrices, counts and losses are sums over samples, and so over processes; singular values are
not. So the sums travel, once per record, and never the rows of a batch.
"""

from __future__ import annotations

import contextlib
import gc
import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from autospec.capture.pieces import sharded_modules
from autospec.errors import AutoSpecError
from autospec.recording.lost_processes import answering
from autospec.recording.packing import AT_ONCE, PACKED, messages_of, sent_as
from autospec.recording.sharded import sharding_group
from autospec.spectra.registered import ROWS
from autospec.spectra.statistics import Statistic

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

HEAD, ROOM = 8, 2**12
"""Bytes of a gathered message's length, and for the message itself where none was longer."""


@dataclass
class Traffic:
    """What one process has sent: messages, their bytes, and the seconds until they had arrived."""

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Processes:
    """Several processes and this one's place among them.

    Args:
        group: the process group; None is the default one.

    Attributes:
        rank: this process's number from 0; the first writes the file.
        size: how many there are.
        traffic: what was sent so far.
    """

    def __init__(self, group: ProcessGroup | None = None) -> None:
        import torch.distributed as dist

        self._group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        if self.rank < 0:
            raise AutoSpecError("process_group: this process is not one of its ranks; make the recorder on these alone")
        on_gpu = "nccl" in str(dist.get_backend(group))
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        self._room: dict[str, int] = {}
        self.traffic = Traffic()

    @property
    def writes(self) -> bool:
        """Whether this process writes the file."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums of tensors over all processes, on the devices they came from.

        Args:
            tensors: of the same shapes and dtypes, in the same order, in every process; whole numbers are below 2^53.

        Returns:
            The sums, bit for bit the same in every process; of a large tensor, in its own memory.

        Raises:
            LostProcess: where another process is gone.
        """
        sums = self.add_up_for(tensors, [None] * len(tensors))
        return [one for one in sums if one is not None]

    def add_up_for(self, tensors: Sequence[Tensor], owners: Sequence[int | None]) -> list[Tensor | None]:
        """As ``add_up``, of which a large tensor may be for one process alone: for half the bytes.

        Args:
            tensors: see ``add_up``.
            owners: who each is for, by number; None is everyone.

        Returns:
            The sums; None for one that another process has.
        """
        sums: list[Tensor | None] = [None] * len(tensors)
        for places in messages_of(tensors):
            flat = self._flat([tensors[place].detach() for place in places])
            owner = owners[places[0]] if len(places) == 1 and flat.numel() > AT_ONCE else None
            self._add_up(flat, owner)
            if owner not in (None, self.rank):
                continue
            for place, part in zip(places, flat.split([tensors[place].numel() for place in places]), strict=True):
                of_place = tensors[place]
                sums[place] = part.view(of_place.shape).to(of_place.device, of_place.dtype)
        return sums

    def bring(self, tensors: Sequence[Tensor], owners: Sequence[int]) -> list[list[Tensor] | None]:
        """Bring every process's tensors to one process each, at the least that can be sent.

        Args:
            tensors: of the same shapes and dtypes, in the same order, in every process.
            owners: who each is for, by number.

        Returns:
            Of a tensor that is for this process those of all, in their order, which may not be changed; None for one
            that is for another.

        Raises:
            LostProcess: where another process is gone.
        """
        import torch.distributed as dist

        sent: list[Tensor] = []
        operations: list[dist.P2POp] = []
        arriving: list[tuple[list[int], list[Tensor]]] = []
        for owner in range(self.size):
            of_owner = [place for place, one in enumerate(owners) if one == owner]
            for part in messages_of([tensors[place] for place in of_owner], PACKED):
                places = [of_owner[place] for place in part]
                flat = self._flat([tensors[place].detach() for place in places])
                if owner != self.rank:
                    sent.append(flat)
                    operations.append(dist.P2POp(dist.isend, flat, group=self._group, group_peer=owner))
                    continue
                of_processes = [flat if rank == owner else torch.empty_like(flat) for rank in range(self.size)]
                arriving.append((places, of_processes))
                operations += [
                    dist.P2POp(dist.irecv, one, group=self._group, group_peer=rank)
                    for rank, one in enumerate(of_processes)
                    if rank != owner
                ]
        with self._sending(*sent):
            for work in dist.batch_isend_irecv(operations) if operations else []:
                work.wait()
        found: list[list[Tensor] | None] = [None] * len(tensors)
        for places, of_processes in arriving:
            lengths = [tensors[place].numel() for place in places]
            for place, *parts in zip(places, *(one.split(lengths) for one in of_processes), strict=True):
                found[place] = [part.view(tensors[place].shape).to(tensors[place].device) for part in parts]
        return found

    def _flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """The numbers of tensors one after the other; one alone stays where it is."""
        if len(tensors) == 1 and tensors[0].is_contiguous() and tensors[0].device.type == self._device.type:
            return tensors[0].view(-1)
        return torch.cat([tensor.reshape(-1).to(self._device, sent_as(tensor)) for tensor in tensors])

    def gather(self, value: Any, kind: str = "") -> list[Any]:
        """What every process gives, in their order: small things that can be pickled.

        One message, into as much room as the longest of its ``kind`` took so far; a second where one is longer.
        """
        message = pickle.dumps(value)
        while True:
            room = self._room.setdefault(kind, ROOM)
            sent = torch.zeros(HEAD + room, dtype=torch.uint8)
            sent[:HEAD] = torch.tensor([len(message)]).view(torch.uint8)
            if len(message) <= room:
                sent[HEAD : HEAD + len(message)] = torch.frombuffer(bytearray(message), dtype=torch.uint8)
            found = self.gather_tensor(sent)
            lengths = [int(one[:HEAD].clone().view(torch.int64)) for one in found]
            if max(lengths) <= room:
                parts = zip(found, lengths, strict=True)
                return [pickle.loads(bytes(one[HEAD : HEAD + length].numpy())) for one, length in parts]  # noqa: S301
            self._room[kind] = 1 << (max(lengths) - 1).bit_length()

    def gather_tensor(self, tensor: Tensor) -> list[Tensor]:
        """A tensor of the same shape from every process, in their order."""
        import torch.distributed as dist

        mine = tensor.detach().contiguous().to(self._device)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with self._sending(mine):
            dist.all_gather(found, mine, group=self._group)
        return [one.to(tensor.device) for one in found]

    @contextlib.contextmanager
    def _sending(self, *tensors: Tensor) -> Iterator[None]:
        """A context for messages, which are counted."""
        began = time.perf_counter()
        with answering(self):
            yield
        self.traffic.messages += len(tensors)
        self.traffic.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.traffic.seconds += time.perf_counter() - began

    def any(self, wants: bool) -> bool:
        """Whether any process wants something; a meeting point, too."""
        return bool(self.add_up([torch.tensor([int(wants)])])[0])

    def agree(self, facts: dict[str, Any]) -> None:
        """AutoSpecError where another process was told, or has come, to something else; a meeting point, too."""
        for rank, others in enumerate(self.gather(facts)):
            for name, value in facts.items():
                if others.get(name) != value:
                    raise AutoSpecError(
                        f"{name} differs between processes: rank {self.rank} has {value!r}, rank {rank} "
                        f"{others.get(name)!r}; all that train one model make the same recorder, and see the same "
                        "file where one is resumed (process_group=False for models that train apart)"
                    )

    def _add_up(self, flat: Tensor, owner: int | None) -> None:
        """Add up one tensor where it is: in every process, or in its owner alone."""
        import torch.distributed as dist

        with self._sending(flat):
            if owner is None:
                dist.all_reduce(flat, group=self._group)
            else:
                dist.reduce(flat, group=self._group, group_dst=owner)


def find_processes(process_group: ProcessGroup | bool | None, model: nn.Module) -> Processes | None:
    """The processes that train a model together; None for one alone.

    Args:
        process_group: that of a recorder: None looks for the wrapper's, then for the default one; False is none.
        model: the model as it was given, in its wrapper or not.
    """
    if process_group is False or not is_one_of_several():
        return None
    own = getattr(model, "process_group", None) if _is_ddp(model) else None
    if process_group is None or process_group is True:
        process_group = sharding_group(model) if sharded_modules(model) else own
    group = process_group
    processes = Processes(group)
    return processes if processes.size > 1 else None


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside ``DistributedDataParallel``, whose calls the wrapper makes; any other model as it is."""
    if not is_one_of_several() or not _is_ddp(model):
        return model
    if getattr(model, "mixed_precision", None) is not None:
        raise AutoSpecError(
            "DistributedDataParallel(mixed_precision=...) computes with other weights than it holds; use torch.autocast"
        )
    inner = model.module
    assert isinstance(inner, nn.Module)
    return inner


def check_served(engine: str, statistics: Sequence[Statistic]) -> None:
    """AutoSpecError for an engine, and a statistic, that cannot be had in several processes."""
    for statistic in statistics:
        if ROWS in statistic.needs:
            raise AutoSpecError(
                f"statistic {statistic.name!r} needs 'rows', which do not leave a process; record it in one alone"
            )
    if engine != "hooks":
        raise AutoSpecError(
            f"engine={engine!r} makes passes of its own, past the gradients that DistributedDataParallel averages; in "
            "several processes use engine='hooks'"
        )


def is_averaged(model: nn.Module) -> bool:
    """Whether a model is inside a ``DistributedDataParallel``, which a trainer may have made of it.

    Raises:
        AutoSpecError: where that divides by another number than that of the processes.
    """
    from torch.nn.parallel import DistributedDataParallel

    wrappers = [one for one in gc.get_objects() if type(one) is DistributedDataParallel]
    own = [wrapper for wrapper in wrappers if any(module is model for module in wrapper.modules())]
    if any(getattr(wrapper, "_divide_by_initial_world_size", True) is False for wrapper in own):
        raise AutoSpecError(
            "join(divide_by_initial_world_size=False) divides a batch's gradient by the number of processes that have "
            "one, so that what a sample counts changes from batch to batch; leave it at True"
        )
    return bool(own)


def is_one_of_several() -> bool:
    """Whether this process has joined others; torch's module is looked at only where it is loaded."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _is_ddp(model: nn.Module) -> bool:
    from torch.nn.parallel import DistributedDataParallel

    return isinstance(model, DistributedDataParallel)
