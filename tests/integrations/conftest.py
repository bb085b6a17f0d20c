"""Importing Lightning and Transformers takes longer than ``make test`` may: their tests are not even collected."""

from __future__ import annotations

from pathlib import Path

import pytest

WHOLLY_SLOW = {"test_lightning.py", "test_transformers.py"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files of slow tests where no slow test is asked for."""
    is_left_out = "not slow" in config.getoption("markexpr") and collection_path.name in WHOLLY_SLOW
    return True if is_left_out else None
