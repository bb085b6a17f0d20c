"""A process of its own for parsers in C that a damaged file can kill: what it dies of is one line.

It is started when it is first needed and used again, since loading HDF5 and SciPy takes a second. It may allocate
little more than the file explains, and is ended where a file keeps it busy without an end.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from autospec.errors import AutoSpecError
from autospec.foreign.files import file_bytes

T = TypeVar("T")

LIMIT_S = 30.0
"""Seconds that a file may take, and more for a large one."""
BYTES_PER_S = 10e6
START_S = 120.0
"""Seconds more for the first file of a process, which loads HDF5 and SciPy."""

ALLOWANCE_BYTES, ALLOWANCE_RATIO = 2**30, 32
"""Memory that reading a file may take beside what the process has already: so much, and so many times its size."""


def read_apart(function: Callable[..., T], path: Path, *arguments: object) -> T:
    """Call ``function(path, *arguments)`` in the process for readers.

    Args:
        function: Of a module's top level; what it returns must be picklable.
        path: The file that it reads.
        *arguments: Further arguments.

    Returns:
        What it returns.

    Raises:
        AutoSpecError: One line with what it raised, or what the process died of.
    """
    size = file_bytes(path)
    with _lock:
        return _reader().call(function, path, arguments, LIMIT_S + size / BYTES_PER_S)


class Reader:
    """The process, and the line to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._start_s = START_S
        self._line, other = Pipe()
        path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *(one for one in sys.path if one)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "autospec.foreign.process", str(other.fileno())],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # what a dying HDF5 prints helps nobody
            pass_fds=[other.fileno()],
        )
        other.close()

    @property
    def is_alive(self) -> bool:
        """Whether it can be used, by this process."""
        return self.owner == os.getpid() and self._process.poll() is None

    def call(self, function: Callable[..., T], path: Path, arguments: tuple[object, ...], limit_s: float) -> T:
        """Have a function called; see ``read_apart``."""
        try:
            self._line.send((function.__module__, function.__qualname__, path.absolute(), arguments))
            limit_s += self._start_s
            self._start_s = 0.0
            if not self._line.poll(limit_s):
                self.close()
                raise AutoSpecError(
                    f"{path}: was not read within {limit_s:.0f} s; the file is damaged, or the disk slow"
                )
            is_well, result = self._line.recv()
        except (EOFError, ConnectionError):
            raise AutoSpecError(f"{path}: {self._cause()}; the file is damaged") from None
        except BaseException:
            self.close()  # an answer that nobody takes would be taken for the next one
            raise
        if not is_well:
            raise AutoSpecError(str(result))
        found: T = result
        return found

    def _cause(self) -> str:
        """What the process died of."""
        status = self._process.wait()
        self.close()
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return f"its reader died of it ({how})"

    def close(self) -> None:
        """End the process."""
        self._line.close()
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()


_lock = threading.RLock()
_readers: list[Reader] = []


def _reader() -> Reader:
    """The process, started where there is none; a fork starts its own."""
    if not _readers or not _readers[0].is_alive:
        close_reader()
        _readers.append(Reader())
    return _readers[0]


@atexit.register
def close_reader() -> None:
    """End the process for readers, if there is one; the next file starts another."""
    while _readers:
        _readers.pop().close()


def serve(line: Connection) -> None:
    """Answer calls until the other end of the line is closed.

    Args:
        line: To the process that asks.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks is told, and closes the line
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            module, name, path, arguments = line.recv()
            _limit_memory(path)
            line.send(_answer(getattr(importlib.import_module(module), name), path, arguments))


def _answer(function: Callable[..., object], path: Path, arguments: tuple[object, ...]) -> tuple[bool, Any]:
    try:
        return True, function(path, *arguments)
    except AutoSpecError as error:
        return False, str(error)
    except MemoryError:
        return False, f"{path}: claims more memory than its size explains; it is damaged"
    except Exception as error:  # noqa: BLE001 (a damaged file raises whatever its damage leads to)
        return False, f"{path}: is truncated or damaged: {' '.join(str(error).split()) or type(error).__name__}"


def _limit_memory(path: Path) -> None:
    with contextlib.suppress(OSError, ValueError):  # of Linux alone
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        allowed = pages * resource.getpagesize() + ALLOWANCE_BYTES + ALLOWANCE_RATIO * path.stat().st_size
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(
            resource.RLIMIT_AS, (allowed if hard == resource.RLIM_INFINITY else min(allowed, hard), hard)
        )


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
