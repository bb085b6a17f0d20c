"""A small cohort of scans in the BIDS layout, and a function that prepares it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cohort_files import blobs, scan, write_image
from omegaconf import OmegaConf

from autospec.cohorts.exclusions import Account
from autospec.cohorts.options import Options
from autospec.cohorts.prepare import prepare
from autospec.experiments.config.grid import compose_config

Prepare = Callable[..., Account]
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Four subjects, ``sub-01`` to ``sub-04``, and their template."""
    folder = tmp_path / "study"
    for number in range(1, 5):
        write_image(folder / f"sub-0{number}" / "func" / f"sub-0{number}_task-rest_bold.nii.gz", scan(number))
    write_image(tmp_path / "template.nii.gz", blobs())
    rows = ["participant_id\tdiagnosis\tsex\tage", "sub-01\tSZ\tM\t30", "sub-02\tHC\tF\t31", "sub-03\tSZ\tF\t32"]
    (folder / "participants.tsv").write_text("\n".join([*rows, "sub-04\tHC\tM\t33"]) + "\n")
    return folder


@pytest.fixture
def prepared(tmp_path: Path) -> Prepare:
    """A function (folder, options …) → the account; the cohort is ``cohort.h5`` in the temporary folder."""

    def make(folder: Path, **options: Any) -> Account:
        defaults: dict[str, Any] = {"template": tmp_path / "template.nii.gz", "output": tmp_path / "cohort.h5"}
        return prepare(Options(folder, **{**defaults, **options}))

    return make


@pytest.fixture(scope="session")
def config() -> Callable[..., Any]:
    """A function (data set, overrides …) → its typed configuration."""

    def make(name: str, *overrides: str) -> Any:
        return OmegaConf.to_object(compose_config(REPOSITORY / "conf", [f"dataset={name}", *overrides]).dataset)

    return make
