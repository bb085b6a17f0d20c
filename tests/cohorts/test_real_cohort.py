"""The ten real scans, from files to the runs of figures 5, 6, 7 and 8, and figure 4 from both kinds of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autospec.cohorts.options import Options
from autospec.cohorts.prepare import prepare
from autospec.cohorts.prepared_file import read_prepared
from autospec.experiments.config.grid import panels_of_figure
from autospec.experiments.plan import plan_run
from autospec.experiments.report.figure import update_figure
from autospec.experiments.report.figure_plan import plan_figure
from autospec.experiments.run import run
from autospec.store.read import open_spectra

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"

pytestmark = pytest.mark.xdist_group("real cohort")  # prepared once, for all


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared cohort of the ten scans."""
    folder = SHARED / "fmri_neuromark"
    if not folder.is_dir():
        pytest.skip(f"there are no real scans at {folder}")
    output = tmp_path_factory.mktemp("real") / "cohort.h5"
    account = prepare(Options(folder, output, template=folder / "neuromark.nii.gz", tr_s=2.0))
    assert not account.dropped
    return output


def drawn(figure: str, output_dir: Path, *overrides: str) -> list[Path]:
    """The spectra of a figure of two epochs, all of whose panels are drawn."""
    choices = ["epochs=2", f"output_dir={output_dir}", "device=cpu", *overrides]
    plans = {
        panel: plan_run(config) for panel, config in panels_of_figure(REPOSITORY / "conf", figure, choices).items()
    }
    for plan in plans.values():
        if not plan.done:
            run(plan)
    files = update_figure(plan_figure(plans))
    assert all(path.stat().st_size > 10_000 for path in [*files.pictures, *map(files.panel, plans)])
    return sorted(output_dir.glob("runs/*/spectra.h5"))


@pytest.mark.slow
def test_the_real_cohort_is_whole(real: Path) -> None:
    found = read_prepared(real, "timecourses")
    assert found.data.shape == (10, 148, 53)
    assert list(found.subjects["id"]) == [f"sub-{n:02d}" for n in range(1, 11)]
    assert "".join(found.subjects["sex"]) == "FFMMFFMMFM"
    assert read_prepared(real, "template_match").data.min() > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("figure", ["fig5", "fig6", "fig7", "fig8"])
def test_figures_run_on_the_real_scans_by_sex(real: Path, figure: str, tmp_path: Path) -> None:
    sizes = ["introspection.permutation_pairs=null", "introspection.permutations=20"] + (
        ["dataset.time_points=40"] if figure == "fig6" else []
    )
    if figure == "fig8":
        sizes.append("dataset.resolution_mm=null")
    sizes.append("figure.pairs=[[women,men]]")
    files = drawn(figure, tmp_path, f"dataset.path={real}", "dataset.target=sex", "dataset.group_by=[sex]", *sizes)
    assert len(files) >= 2
    for file in files:
        spectra = open_spectra(file)
        assert list(spectra.group_names) == ["all", "men", "women"]
        first = spectra[spectra.layers[0]].gradient
        assert np.isfinite(first.values).all()


@pytest.mark.slow
def test_figure_4_runs_from_the_table_and_from_stats_folders(tmp_path: Path) -> None:
    table = SHARED / "cobre_freesurfer"
    if not table.is_dir():
        pytest.skip(f"there are no FreeSurfer tables at {table}")
    subjects = tmp_path / "subjects.tsv"
    subjects.write_text("participant_id\tdiagnosis\na\tSZ\nb\tHC\n")
    from_table = (
        f"dataset.table={table / 'freesurfer_stats.tsv'}",
        f"dataset.participants={table / 'participants.tsv'}",
    )
    from_stats = (f"dataset.subjects_dir={SHARED / 'freesurfer_subjects'}", f"dataset.participants={subjects}")
    assert len(drawn("fig4", tmp_path / "table", *from_table)) == 6
    assert len(drawn("fig4", tmp_path / "stats", *from_stats, "dataset.features=aparc_thickness")) == 6
