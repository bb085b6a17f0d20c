"""The same numbers every time: settings of torch for the length of a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

_DETERMINISTIC = 2
"""The debug mode in which an operation without a deterministic algorithm is an error."""


@contextlib.contextmanager
def make_deterministic(threads: int) -> Iterator[None]:
    """A context with deterministic algorithms, full float32 products and a fixed number of threads.

    The settings of torch that were there before come back at its end.

    Args:
        threads: of torch on the CPU; another number changes float32 results in their last digits.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    before = (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.benchmark,
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
    )
    _set(threads, _DETERMINISTIC, False, "highest", False)
    try:
        yield
    finally:
        _set(*before)


def _set(threads: int, algorithms: int, benchmark: bool, matmul: str, cudnn_tf32: bool) -> None:
    """Set what decides the last digits."""
    torch.set_num_threads(threads)
    # the same as torch.use_deterministic_algorithms, which imports the compiler to tell it too: some seconds
    torch.set_deterministic_debug_mode(algorithms)
    # a debugging aid that costs time; a property of the module, which type checkers do not see
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = benchmark
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = cudnn_tf32
