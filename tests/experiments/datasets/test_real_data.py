"""Real cohorts, where they are at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autospec.cohorts.tables import read_table
from autospec.experiments import datasets
from autospec.experiments.datasets.freesurfer.volumes import COMPOSITES, EMPTY, FEATURES, STRUCTURES

Make = Callable[..., Any]


def freesurfer(config: Make, shared_data: Path, *overrides: str) -> Any:
    folder = shared_data / "cobre_freesurfer"
    files = (f"dataset.table={folder / 'freesurfer_stats.tsv'}", f"dataset.participants={folder / 'participants.tsv'}")
    return datasets.load(config("freesurfer", *files, *overrides))


def test_cobre_has_all_its_people(config: Make, shared_data: Path) -> None:
    data = freesurfer(config, shared_data, "dataset.group_by=[diagnosis,sex]")
    assert data.inputs.shape == (124, 39)
    assert dict(zip(data.groups, np.bincount(data.group), strict=True)) == {
        "HC/men": 43, "HC/women": 20, "SZ/men": 51, "SZ/women": 10,
    }  # fmt: skip
    assert not any(line.startswith("left out") for line in data.account)
    assert np.allclose(data.inputs.mean(0), 0, atol=1e-4)
    assert not data.simulated


def test_our_lists_are_the_columns_of_a_real_table(shared_data: Path) -> None:
    columns = list(read_table(shared_data / "cobre_freesurfer" / "freesurfer_stats.tsv").columns)
    assert [name for name in columns if name in STRUCTURES] == list(STRUCTURES)
    assert set(COMPOSITES) <= set(columns)


def test_all_columns_but_the_constant_ones_can_be_used(config: Make, shared_data: Path) -> None:
    data = freesurfer(config, shared_data, "dataset.features=all")
    assert data.inputs.shape == (124, 213)
    assert f"constant or empty columns are left out: {', '.join(EMPTY[1:])}" in data.account


def test_simulated_volumes_look_like_the_real_ones(config: Make, shared_data: Path) -> None:
    real = freesurfer(config, shared_data, "dataset.scaling=none").inputs
    made = datasets.load(config("freesurfer", "dataset.scaling=none")).inputs
    assert made.shape == real.shape
    ratio = np.median(made, axis=0) / np.median(real, axis=0)
    unlike = {name: own for name, own in zip(FEATURES["aseg"], ratio, strict=True) if not 0.7 < own < 1.4}
    assert not unlike
    above = np.triu_indices(real.shape[1], 1)
    likeness = np.corrcoef(np.corrcoef(real.T)[above], np.corrcoef(made.T)[above])[0, 1]
    assert likeness > 0.5


def test_maps_have_all_their_people(config: Make, shared_data: Path) -> None:
    data = datasets.load(config("cobre_maps", f"dataset.path={shared_data / 'mcic_maps'}"))
    assert data.inputs.shape == (120, 1, 30, 36, 30)
    assert np.bincount(data.group).tolist() == [30, 30, 30, 30]
    assert data.inputs.std() == pytest.approx(1, abs=1e-3)
    assert not any(line.startswith("left out") for line in data.account)


def test_maps_can_be_made_coarser(config: Make, shared_data: Path) -> None:
    data = datasets.load(config("cobre_maps", f"dataset.path={shared_data / 'mcic_maps'}", "dataset.resolution_mm=12"))
    assert data.inputs.shape == (120, 1, 15, 18, 15)
