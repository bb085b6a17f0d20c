"""Where a run's numbers come from: code, packages, machine, command, cost."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autospec.errors import AutoSpecError
from autospec.store.write import replaced

PACKAGES = ("torch", "numpy", "scipy", "h5py", "hydra-core", "omegaconf", "transformers", "nilearn", "nibabel")

SAME_FOR_RESUME = ("device", "threads", "precision", "git_commit", "packages")
"""What must be the same for a resumed run to give the numbers of an undisturbed one."""


def git_state() -> str:
    """The commit of the source tree, with "+changes" where it was edited; "unknown" outside a repository."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(source), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(source))
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+changes" if changed else "")


def versions() -> dict[str, str]:
    """The versions of the packages that decide numbers."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


@dataclass
class Provenance:
    """What a run was made with; ``sessions`` are its launches, several where it was resumed."""

    run_id: str
    data_fingerprint: str
    device: str
    threads: int
    precision: str = "float32"
    python: str = field(default_factory=platform.python_version)
    packages: dict[str, str] = field(default_factory=versions)
    git_commit: str = field(default_factory=git_state)
    sessions: list[dict[str, Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        with replaced(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def differences(self, earlier: Provenance) -> list[str]:
        """What has changed since an earlier launch that would change the numbers, each as a short phrase."""
        return [
            f"{name} was {getattr(earlier, name)} and is {getattr(self, name)}"
            for name in SAME_FOR_RESUME
            if getattr(earlier, name) != getattr(self, name)
        ]


def read_provenance(path: Path) -> Provenance | None:
    """The provenance of an earlier launch, or None; AutoSpecError for a damaged file."""
    if not path.is_file():
        return None
    try:
        return Provenance(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise AutoSpecError(f"{path} is damaged: {error}") from error


def session() -> dict[str, Any]:
    """This launch: its command and machine."""
    return {"command": " ".join(sys.argv), "host": platform.node(), "platform": platform.platform(), "pid": os.getpid()}


def peak_memory_mb() -> float:
    """The largest memory that this process has held, in MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1))
