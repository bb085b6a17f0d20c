"""A copy of this checkout for a campaign: whoever works on the code meanwhile changes nothing in its runs."""

from __future__ import annotations

import compileall
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def copied_checkout(folder: Path) -> Path:
    """Copy what a command needs, compiled, as a run goes on only with the code that it began with.

    Args:
        folder: Where the copy is made.

    Returns:
        The copy, as a checkout.
    """
    checkout = folder / "checkout"
    for part in ("src", "conf", "scripts"):
        shutil.copytree(ROOT / part, checkout / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / part, checkout)
    compileall.compile_dir(checkout / "src", quiet=1)
    return checkout
