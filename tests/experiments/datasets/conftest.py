"""What the tests of data sets share: configurations as ``run.py`` composes them, and tables in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from autospec.experiments.config.grid import compose_config
from autospec.experiments.config.registry import register_schemas

REPOSITORY = Path(__file__).resolve().parents[3]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def config() -> Callable[..., Any]:
    """A function (data set, overrides …) → its typed configuration."""
    register_schemas()

    def make(name: str, *overrides: str) -> Any:
        whole = compose_config(REPOSITORY / "conf", [f"dataset={name}", *overrides])
        return OmegaConf.to_object(whole.dataset)

    return make


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data; a test that asks for it is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"there is no real data at {SHARED_DATA}")
    return SHARED_DATA
