"""The device that trains, and its memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import Device


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
