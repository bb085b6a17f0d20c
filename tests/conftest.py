"""What every test stands on: one thread, fixed seeds, the real data's folder where there is one."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("nothing_is_kept", database=None, deadline=None)
settings.load_profile("nothing_is_kept")
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "autospec-hypothesis")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside a checkout; tests that need it skip where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real data beside the checkout is absent")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capfd) -> Callable[..., str]:
    """Type a command line; its exit message ("" after success). Output goes below the test's own folder."""
    from autospec.experiments.launch.command_line import main

    def typed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments, f"output_dir={tmp_path / 'outputs'}"])
        monkeypatch.chdir(tmp_path)
        root = logging.getLogger()
        level, handlers = root.level, root.handlers[:]
        try:
            main(ROOT / "conf")
        except SystemExit as stop:
            assert stop.code != 0
            return str(stop.code)
        finally:
            root.setLevel(level)
            root.handlers[:] = handlers
        return ""

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return typed


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """A function (file name, rows …) → the path of a tab-separated file of these rows."""

    def write(name: str, *rows: Sequence[object]) -> Path:
        path = tmp_path / name
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
        return path

    return write
