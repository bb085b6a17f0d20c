"""The processes of one run: the first is the one that was launched, and it starts the others on the same machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from autospec.errors import AutoSpecError
from autospec.experiments.runs.signals import POSTPONED
from autospec.recording.processes import LostProcess, Processes

SILENCE = timedelta(minutes=30)
"""So long a process waits for another that does not answer: a slow epoch is no lost process."""

Entry = Callable[[Processes], None]
"""What another process does, from its place among all; it must be a function that can be pickled."""


@contextlib.contextmanager
def other_ranks(count: int, device: str, entry: Entry) -> Iterator[Processes | None]:
    """A context in which ``count - 1`` other processes run ``entry`` beside this one.

    Yields:
        This process's place among them; None where it is alone.

    Raises:
        AutoSpecError: for more processes than GPUs, and with the line of a process that ended in an error.
    """
    if count == 1:
        yield None
        return
    _check_gpus(count, device)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="autospec-") as name:
        folder = Path(name)
        others = [
            context.Process(target=_other, args=(rank, count, device, folder, entry), daemon=True)
            for rank in range(1, count)
        ]
        for other in others:
            other.start()
        try:
            with _joined(0, count, device, folder) as processes:
                yield processes
            for other in others:
                other.join()
        except LostProcess as error:
            raise AutoSpecError(_first_line(folder) or str(error)) from error
        finally:
            for other in others:
                other.kill()
                other.join()


@contextlib.contextmanager
def _joined(rank: int, count: int, device: str, folder: Path) -> Iterator[Processes]:
    """A context in which this process is one of several."""
    if device == "cuda":
        torch.cuda.set_device(rank)
    elif sys.platform == "linux":  # all on this machine, whatever its name resolves to
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if device == "cuda" else "gloo"
    store = dist.FileStore(str(folder / "store"), count)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=SILENCE)
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()


def _other(rank: int, count: int, device: str, folder: Path, entry: Entry) -> None:
    """Another process's life; the first decides when all stop, so signals are its own."""
    for number in POSTPONED:
        signal.signal(number, signal.SIG_IGN)
    try:
        with _joined(rank, count, device, folder) as processes:
            entry(processes)
    except LostProcess:
        sys.exit(1)  # the first says why
    except Exception as error:  # noqa: BLE001 (the first process says it)
        text = f"process {rank} of {count} on {socket.gethostname()}: {error}"
        (folder / f"error_{rank}").write_text(text)
        sys.exit(1)


def _first_line(folder: Path) -> str:
    """What a process said when it ended in an error; "" where none did."""
    return next((path.read_text() for path in sorted(folder.glob("error_*"))), "")


def _check_gpus(count: int, device: str) -> None:
    if device == "cuda" and torch.cuda.device_count() < count:
        raise AutoSpecError(
            f"processes={count}: with device=cuda each has a GPU of its own, and there are {torch.cuda.device_count()}"
        )
