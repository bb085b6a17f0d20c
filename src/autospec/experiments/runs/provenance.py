"""Where a run's numbers come from: code, packages, machine, command, cost."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autospec.errors import AutoSpecError
from autospec.store.atomic import write_atomically

PACKAGES = ("torch", "numpy", "scipy", "h5py", "hydra-core", "omegaconf", "transformers", "nilearn", "nibabel")

SAME_FOR_RESUME = ("device", "gpu", "threads", "processes", "precision", "code")
"""What, beside the packages, must be the same for a resumed run to give the numbers of an undisturbed one."""

SOURCE = Path(__file__).parents[2]
DRAWING = ("analysis", "figures", "webpage")
"""Packages of ours that no run's numbers come from."""


def git_state() -> str:
    """Return the commit of the source tree, with "+changes" where it was edited; "unknown" outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        # of the source alone: notes and outputs beside it decide no number
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(SOURCE))
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+changes" if changed else "")


@cache
def code_digest() -> str:
    """Return a digest of the source that decides numbers; where files were edited, a commit does not tell them."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        # a run may go on after the pictures of others were improved
        if relative.parts[0] not in DRAWING:
            digest.update(f"{relative}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide numbers, "absent" for one that is not installed."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "absent"
    return installed


@dataclass
class Provenance:
    """What a run was made with.

    Attributes:
        run_id: the run's.
        data_fingerprint: of the data it was trained on.
        device: cpu or cuda.
        threads: of torch, on the CPU.
        gpu: the model of the GPU, empty on the CPU.
        precision: of weights and activations.
        processes: how many trained the run together.
        packages: versions of the packages that decide numbers.
        git_commit: of our source tree.
        code: a digest of our source.
        sessions: the launches, several where the run was resumed.
    """

    run_id: str
    data_fingerprint: str
    device: str
    threads: int
    gpu: str = ""
    precision: str = "float32"
    processes: int = 1
    python: str = field(default_factory=platform.python_version)
    packages: dict[str, str] = field(default_factory=versions)
    git_commit: str = field(default_factory=git_state)
    code: str = field(default_factory=code_digest)
    sessions: list[dict[str, Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def differences(self, earlier: Provenance) -> list[str]:
        """Return what has changed since an earlier launch that may change the numbers, each as a short phrase."""
        return list(_differences(self, earlier))

    def begin(self, command: str, epoch: int, accepted: list[str]) -> None:
        """Note the beginning of a launch.

        Args:
            command: the command line that makes this run again.
            epoch: the number of epochs done before.
            accepted: what has changed since the launch before.
        """
        self._clock_s = time.monotonic()
        self.sessions.append(
            {
                "command": command,
                "host": platform.node(),
                "platform": platform.platform(),
                "pid": os.getpid(),
                "slurm_job": _slurm_job(),
                "began": datetime.now().astimezone().isoformat(timespec="milliseconds"),
                "from_epoch": epoch,
                "accepted_changes": accepted,
            }
        )

    def reached(self, epoch: int, peak_gpu_memory_mb: float | None) -> None:
        """Note how far the launch has come, its wall time (s) and the most memory that it has held.

        Args:
            epoch: the number of epochs done.
            peak_gpu_memory_mb: in MiB; None without a GPU.
        """
        self.sessions[-1] |= {
            "to_epoch": epoch,
            "wall_s": round(time.monotonic() - self._clock_s, 2),
            "peak_memory_mb": peak_memory_mb(),
            "peak_gpu_memory_mb": peak_gpu_memory_mb,
        }


def _differences(now: Provenance, earlier: Provenance) -> Iterator[str]:
    for name in SAME_FOR_RESUME:
        before, after = getattr(earlier, name), getattr(now, name)
        if before != after:
            yield f"{name} was {before or 'none'} and is {after or 'none'}"
    for package in sorted(now.packages | earlier.packages):
        before, after = earlier.packages.get(package, "absent"), now.packages.get(package, "absent")
        if before != after:
            yield f"{package} was {before} and is {after}"


def read_provenance(path: Path) -> Provenance:
    """Read the provenance of an earlier launch.

    Returns:
        The provenance, with every launch until then.

    Raises:
        AutoSpecError: for a file that is missing or damaged.
    """
    if not path.is_file():
        raise AutoSpecError(f"{path} is missing; the original settings are unknown")
    try:
        return Provenance(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise AutoSpecError(f"{path} is damaged; the original settings are unknown") from error


def _slurm_job() -> str | None:
    """The SLURM job that this process is part of, as ``squeue`` names it."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def peak_memory_mb() -> float:
    """Return the most memory that this process has held, in MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1))
