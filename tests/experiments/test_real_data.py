"""Figures from real inputs through documented overrides; skipped where the folder of real data is absent."""

from pathlib import Path

import pandas as pd
import pytest

from autospec import open_spectra
from autospec.experiments.config.grid import panels_of_figure
from autospec.experiments.plan import plan_run
from autospec.experiments.report.figure import update_figure
from autospec.experiments.report.figure_plan import plan_figure
from autospec.experiments.run import run

CONF = Path(__file__).resolve().parents[2] / "conf"


def _overrides(figure, data):
    return {
        "fig1": [f"dataset.path={data / 'mnist'}", "dataset.per_digit=800"],
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
    files = update_figure(plan_figure(plans))
    assert all(path.stat().st_size > 10_000 for path in [*files.pictures, *map(files.panel, plans)])
    if figure == "fig4":
        _check_answers(pd.read_csv(files.table))


def _check_answers(table):
    """Both panels of the cohort's figure are tested, have intervals, and say whether the inputs differ."""
    for panel in "GH":
        whole = table[(table.panel == panel) & (table.per == "trajectory") & (table.kind == "inferential")]
        primary = whole[whole.test == "permutation"]
        assert set(primary.layer) == {"hidden.0", "head"}
        assert (primary.low < primary.excess_log2_ratio).all()
        assert (primary.excess_log2_ratio < primary.high).all()
        assert primary.p_family.between(0, 1).all()
        assert set(primary.networks) == ({1} if panel == "G" else {201})
        plain = whole[whole.test.str.startswith("inputs_")]
        assert set(plain.test) == {"inputs_mean", "inputs_covariance"}
        assert plain.p.between(0, 1).all()
