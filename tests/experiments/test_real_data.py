"""Figures from real inputs through documented overrides; skipped where the folder of real data is absent."""

from pathlib import Path

import pytest

from autospec import open_spectra
from autospec.experiments.config.grid import panels_of_figure
from autospec.experiments.plan import plan_run
from autospec.experiments.report.files import update_figure
from autospec.experiments.run import run

CONF = Path(__file__).resolve().parents[2] / "conf"


def _overrides(figure, data):
    return {
        "fig1": [f"dataset.path={data / 'mnist'}"],
        "fig4": [
            f"dataset.table={data / 'cobre_freesurfer' / 'freesurfer_stats.tsv'}",
            f"dataset.participants={data / 'cobre_freesurfer' / 'participants.tsv'}",
        ],
        "fig8": [f"dataset.path={data / 'mcic_maps'}", "dataset.resolution_mm=12"],
    }[figure]


@pytest.mark.slow
@pytest.mark.parametrize("figure", ["fig1", "fig4", "fig8"])
def test_all_panels_are_drawn_from_real_inputs(figure, shared_data, tmp_path):
    overrides = [*_overrides(figure, shared_data), "epochs=3", f"output_dir={tmp_path}"]
    plans = {panel: plan_run(config) for panel, config in panels_of_figure(CONF, figure, overrides).items()}
    for plan in plans.values():
        if not plan.done:
            run(plan)
    assert not open_spectra(plans["A"].folder.spectra).simulated
    files = update_figure(plans)
    assert all(path.stat().st_size > 10_000 for path in [*files.pictures, *map(files.panel, plans)])
