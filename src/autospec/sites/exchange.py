"""Messages between sites: each sends to every other, without a party in the middle, and counts what it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autospec.errors import AutoSpecError
from autospec.recording.lost_processes import answering
from autospec.recording.processes import Processes

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class SiteExchange:
    """The sites, one process each, and what this one has sent.

    Args:
        names: of the sites, in the order of their ranks.
        group: the process group; None is the default one.

    Attributes:
        sent_bytes: the size of all buffers that were handed to ``isend``, to all other sites together.
    """

    def __init__(self, names: list[str], group: ProcessGroup | None = None) -> None:
        self.processes = Processes(group)
        if self.processes.size != len(names):
            raise AutoSpecError(
                f"sites={names}: {len(names)} sites, but {self.processes.size} processes; each site is one process"
            )
        self.names = names
        self._group = group
        self.sent_bytes = 0

    @property
    def mine(self) -> int:
        """This site's number."""
        return self.processes.rank

    def all_messages(self, message: Tensor, lengths: list[int] | None = None) -> list[Tensor]:
        """The messages (bytes,) of all sites in their order, this one's among them.

        Args:
            message: uint8, this site's.
            lengths: how long that of each site is; None where all are as long as this one's.
        """
        others = [rank for rank in range(len(self.names)) if rank != self.mine]
        sizes = [len(message)] * len(self.names) if lengths is None else lengths
        messages = [torch.empty(size, dtype=torch.uint8) for size in sizes]
        messages[self.mine] = message
        with answering(self.processes):
            waiting = [self._receive(messages[rank], rank) for rank in others if len(messages[rank])]
            waiting += [self._send(message, rank) for rank in others if len(message)]
            for work in waiting:
                work.wait()
        return messages

    def _send(self, message: Tensor, rank: int) -> torch.distributed.Work:
        import torch.distributed as dist

        self.sent_bytes += message.numel() * message.element_size()
        work = dist.isend(message, group=self._group, group_dst=rank)
        assert work is not None
        return work

    def _receive(self, into: Tensor, rank: int) -> torch.distributed.Work:
        import torch.distributed as dist

        work = dist.irecv(into, group=self._group, group_src=rank)
        assert work is not None
        return work
