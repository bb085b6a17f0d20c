"""The device that trains: which it is, how it computes the same numbers every time, and its memory."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import Device

_DETERMINISTIC = 2
"""The debug mode in which an operation without a deterministic algorithm is an error."""


def device_name(device: Device) -> str:
    """Return cpu or cuda.

    Raises:
        AutoSpecError: for cuda where there is none.
    """
    available = torch.cuda.is_available()
    if device is Device.cuda and not available:
        raise AutoSpecError("device=cuda: torch finds no CUDA GPU on this machine; allowed here: auto, cpu")
    return "cuda" if available and device is not Device.cpu else "cpu"


def gpu_name(device: str) -> str:
    """The model of the GPU that trains, empty where none does."""
    return torch.cuda.get_device_name() if device == "cuda" else ""


def peak_gpu_memory_mb(device: str) -> float | None:
    """The most memory that the process has held on the GPU, in MiB; None where none trains."""
    return round(torch.cuda.max_memory_allocated() / 1024**2, 1) if device == "cuda" else None


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


@contextlib.contextmanager
def name_memory_shortage() -> Iterator[None]:
    """A context in which memory that runs out is an AutoSpecError.

    Torch reports it as OutOfMemoryError on a GPU and as a plain RuntimeError elsewhere, NumPy as MemoryError.

    Raises:
        AutoSpecError: where memory runs out; says what needs less.
    """  # noqa: DOC501 (errors of other kinds pass through as they are)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if _is_shortage(error):
            raise AutoSpecError(
                "there is not enough memory for this run: a smaller width, depth, batch_size or data set needs less"
            ) from error
        raise


def _is_shortage(error: Exception) -> bool:
    """Whether an exception says that memory has run out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return re.search("allocate memory|Storage size", str(error)) is not None
