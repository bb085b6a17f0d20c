"""Several processes on this machine, over gloo and a file: what each returns, or the line it ends with."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import h5py
import numpy as np

LIMIT_S = 600
"""No test waits longer for its processes, which end by themselves: for a hang, not for a machine that is busy."""

SILENCE_S = 20
"""So long a process waits for another that does not answer."""


def on_ranks(worker: Callable[..., Any], size: int, folder: Path, *arguments: Any) -> list[Any]:
    """What ``worker(rank, size, *arguments)`` returns in each of ``size`` processes, in their order.

    A process that raises returns the exception's text; one that was killed returns None.
    """
    # a server that has imported torch forks each process; this one may have run autograd, which must not be forked
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch._dynamo", "autospec.recording.recorder", "situation_workers", "sharded_workers", "site_workers"]
    )
    processes = [
        context.Process(target=_run, args=(worker, rank, size, folder, arguments), daemon=True) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()
            process.join()
    return [_result(folder / f"rank_{rank}.pickle") for rank in range(size)]


def assert_same_file(path: Path, expected: Path, tolerance: float = 1e-10, leave_out: Sequence[str] = ()) -> None:
    """Every array of two files is the same, relative to its largest number."""
    with h5py.File(path) as found, h5py.File(expected) as file:
        arrays = {}
        file.visititems(lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
        names = []
        found.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert {*names} - {*leave_out} == {*arrays} - {*leave_out}, {*names} ^ {*arrays}
        for name, values in arrays.items():
            if name in leave_out:
                continue
            other = found[name][()]
            if values.dtype.kind != "f":
                assert np.array_equal(other, values), name
                continue
            scale = np.nanmax(np.abs(values), initial=0.0)
            assert np.array_equal(np.isnan(other), np.isnan(values)), name
            assert np.nanmax(np.abs(other - values), initial=0.0) <= tolerance * max(scale, 1e-300), name


def _result(path: Path) -> Any:
    return pickle.loads(path.read_bytes()) if path.exists() else None  # noqa: S301 (its own)


def _run(worker: Callable[..., Any], rank: int, size: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=SILENCE_S))
    try:
        result = worker(rank, size, *arguments)
        (folder / f"rank_{rank}.pickle").write_bytes(pickle.dumps(result))
        dist.barrier()  # nobody leaves while others still read from it
    except Exception as error:  # noqa: BLE001 (what the test looks at)
        traceback.print_exc()
        (folder / f"rank_{rank}.pickle").write_bytes(pickle.dumps(f"{type(error).__name__}: {error}"))
    finally:
        dist.destroy_process_group()
