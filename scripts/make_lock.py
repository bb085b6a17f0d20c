"""Write requirements.lock: the exact version of everything that pyproject.toml asks for, as pip resolves it today.

python scripts/make_lock.py

torch's own GPU packages are left to pip: they differ between machines.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Exact versions of everything; written by `make lock` from pyproject.toml.
# pip install -r requirements.lock
"""
TORCH = "torch==2.13.0"
"""Exact, and without +cpu: pip takes a CPU build where it is offered one, and not the newest of several GB."""
LEFT_TO_PIP = re.compile(r"nvidia-|triton|cuda-")


def resolved() -> list[str]:
    """``name==version`` of every package that pip would install, without installing any."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", report.name, f"{ROOT}[all,dev]", TORCH, "setuptools"], check=True)
        installs = json.loads(Path(report.name).read_text())["install"]
    pins = {entry["metadata"]["name"].lower().replace("_", "-"): entry["metadata"]["version"] for entry in installs}
    pins.pop("autospec-torch")
    # a local version such as +cpu names the build of one index
    return sorted(f"{name}=={pin.split('+')[0]}" for name, pin in pins.items() if not LEFT_TO_PIP.match(name))


def main() -> None:
    """Write the lock file beside pyproject.toml."""
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(resolved()) + "\n")


if __name__ == "__main__":
    main()
