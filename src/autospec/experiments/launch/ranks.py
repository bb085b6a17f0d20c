"""The processes of one run: the first is the one that was launched, and it starts the others on the same machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist

from autospec.errors import AutoSpecError
from autospec.experiments.runs.signals import POSTPONED
from autospec.recording.lost_processes import LostProcess, answering
from autospec.recording.processes import Processes

SILENCE = timedelta(minutes=30)
"""So long a process waits for another that does not answer: a slow epoch is no lost process."""

ENDS_S = 1.0
"""So long is waited for a process whose connection is closed to be gone."""

Entry = Callable[[Processes], object]
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
        hearing, telling = context.Pipe(duplex=False)
        others = [
            context.Process(target=_other, args=(rank, count, device, folder, entry, telling), daemon=True)
            for rank in range(1, count)
        ]
        try:
            with _signals_held_back():  # others inherit that, and so end with this one alone
                for other in others:
                    other.start()
            telling.close()
            _wait_until_there(others, hearing)
            with _joined(0, count, device, folder) as processes, answering(processes):
                yield processes
            for other in others:
                other.join()
        except LostProcess as error:
            raise AutoSpecError(_first_line(folder) or _ended(others) or str(error)) from error
        finally:
            for other in others:
                if other.pid is not None:
                    other.kill()
                    other.join()


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """A context in which signals that ask to stop wait, for this process and for those that it starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, POSTPONED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_until_there(others: Sequence[BaseProcess], hearing: Connection) -> None:
    """Wait until every other process is about to join; LostProcess where one ends before.

    Joining cannot be interrupted, and would wait for a process that is gone as long as for a slow one.
    """
    there = 0
    while there < len(others):
        ready = wait([hearing, *(other.sentinel for other in others)])
        try:
            if hearing not in ready:
                raise EOFError
            hearing.recv()
        except EOFError:
            raise LostProcess(f"another of the {len(others) + 1} processes ended before training began") from None
        there += 1


def _ended(others: Sequence[BaseProcess]) -> str:
    """Which process a signal has ended; "" where none."""
    for rank, other in enumerate(others, start=1):
        other.join(ENDS_S)
        if other.exitcode is not None and other.exitcode < 0:
            name = signal.Signals(-other.exitcode).name
            return (
                f"process {rank} of {len(others) + 1} was ended by {name}{' (out of memory?)' * (name == 'SIGKILL')}; "
                "the same command goes on from the last checkpoint"
            )
    return ""


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


def _other(rank: int, count: int, device: str, folder: Path, entry: Entry, telling: Connection) -> None:
    """Another process's life; the first decides when all stop, so signals are its own."""
    for number in POSTPONED:
        signal.signal(number, signal.SIG_IGN)
    ending = threading.Thread(target=_end_with_the_first, args=(folder,), daemon=True)
    ending.start()
    try:
        telling.send(rank)
        with _joined(rank, count, device, folder) as processes, _noted(folder, rank, count):
            entry(processes)
    except Exception:  # noqa: BLE001 (the first process says it)
        ending.join(ENDS_S)  # where the first is gone itself, its folder is still to be removed
        sys.exit(1)


@contextlib.contextmanager
def _noted(folder: Path, rank: int, count: int) -> Iterator[None]:
    """A context that notes an error for the first process, before a connection that closes tells it of one."""
    try:
        yield
    except LostProcess:
        raise  # the first says why
    except Exception as error:
        (folder / f"error_{rank}").write_text(f"process {rank} of {count} on {socket.gethostname()}: {error}")
        raise


def _end_with_the_first(folder: Path) -> None:
    """End this process where the first one was killed, whatever it waits for; nothing of the run is left behind."""
    first = multiprocessing.parent_process()
    assert first is not None
    first.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _first_line(folder: Path) -> str:
    """What a process said when it ended in an error; "" where none did."""
    return next((path.read_text() for path in sorted(folder.glob("error_*"))), "")


def _check_gpus(count: int, device: str) -> None:
    if device == "cuda" and torch.cuda.device_count() < count:
        raise AutoSpecError(
            f"processes={count}: with device=cuda each has a GPU of its own, and there are {torch.cuda.device_count()}"
        )
