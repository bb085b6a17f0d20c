"""Cells of the full grid, two epochs each: enough that every two values of it meet in some cell."""

import itertools
import os
from pathlib import Path

import pytest

from autospec import open_spectra
from autospec.experiments.config.grid import ARCHITECTURES_OF, compose_config
from autospec.experiments.plan import plan_run
from autospec.experiments.run import run

CONF = Path(__file__).resolve().parents[2] / "conf"
TINY = {
    "mnist": ["dataset.per_digit=3"],
    "sinusoid": ["dataset.per_class=3", "dataset.time_points=16"],
    "freesurfer": [],
    "cobre_timeseries": ["dataset.time_points=12"],
    "cobre_fnc": ["dataset.time_points=60"],
    "cobre_multiscale": [],
    "cobre_maps": ["dataset.resolution_mm=20"],
}
CELLS = [
    {"dataset": dataset, "architecture": architecture, "task": task, "activation": activation, "width": width}
    for dataset, architectures in ARCHITECTURES_OF.items()
    for architecture in architectures
    for task in ("autoencoding", "classification")
    for activation in ("relu", "tanh", "sigmoid")
    for width in (8, 32, 64)
]


def _pairs(cell):
    return set(itertools.combinations(cell.items(), 2))


def _pairwise(cells):
    """Cells, each the one that adds most, until every pair of values that can meet has met."""
    missing = set().union(*map(_pairs, cells))
    chosen = []
    while missing:
        best = max(cells, key=lambda cell: len(_pairs(cell) & missing))
        missing -= _pairs(best)
        chosen.append(best)
    return chosen


CHOSEN = CELLS if os.environ.get("AUTOSPEC_WHOLE_GRID") else _pairwise(CELLS)


def _name(cell):
    return "-".join(str(value) for value in cell.values())


@pytest.mark.parametrize("cell", CHOSEN, ids=_name)
def test_a_cell_of_the_grid_runs(cell, tmp_path):
    overrides = [f"{key}={value}" for key, value in cell.items()]
    plan = plan_run(compose_config(CONF, [*overrides, *TINY[cell["dataset"]], "epochs=2", f"output_dir={tmp_path}"]))
    run(plan)
    spectra = open_spectra(plan.folder.spectra)
    assert spectra.complete
    assert spectra.simulated is (cell["dataset"] != "mnist")
    frame = spectra.to_frame()
    assert frame["value"].notna().all()
    assert (frame.groupby(["layer", "epoch"])["value"].max() > 0).all()


def test_the_chosen_cells_hold_every_pair_of_values():
    assert set().union(*map(_pairs, CHOSEN)) == set().union(*map(_pairs, CELLS))
