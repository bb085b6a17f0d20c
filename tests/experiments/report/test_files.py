"""From tiny runs to the files of figure 1."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from autospec import AutoSpecError
from autospec.analysis.figure_summary import COLUMNS as SUMMARY_COLUMNS
from autospec.analysis.figure_table import COLUMNS
from autospec.experiments.config.grid import figure_names, panels_of_figure
from autospec.experiments.plan import plan_run
from autospec.experiments.report import figure as figure_module
from autospec.experiments.report.figure import update_figure
from autospec.experiments.report.figure_plan import check_comparisons, plan_figure
from autospec.experiments.report.retraining import ratios_path
from autospec.store import layer_arrays, read

CONF = Path(__file__).resolve().parents[3] / "conf"
TINY = ["dataset.per_digit=16", "epochs=4", "preset=quick", "introspection.retrain=19", "introspection.permutations=49"]


def _trained(output_dir: Path, *overrides: str) -> dict:
    from autospec.experiments.run import run

    configs = panels_of_figure(CONF, "fig1", [*TINY, f"output_dir={output_dir}", *overrides])
    plans = {panel: plan_run(config) for panel, config in configs.items()}
    for plan in plans.values():
        if not plan.done:
            run(plan)
    return plans


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The figure's plans and files."""
    plans = _trained(tmp_path_factory.mktemp("outputs"))
    return plans, update_figure(plan_figure(plans))


def test_six_runs_serve_eight_panels(made):
    plans, _ = made
    assert len({plan.folder.run_id for plan in plans.values()}) == 6
    assert plans["G"].folder == plans["A"].folder
    assert plans["H"].folder == plans["B"].folder


def test_every_file_is_there(made):
    plans, figure = made
    names = {path.name for path in figure.table.parent.iterdir()}
    assert names == {f"figure_1_{kind}.{ending}" for kind in ("tests", "summary") for ending in ("csv", "json")}
    pictures = {path.name for path in figure.pictures[0].parent.iterdir() if not path.name.startswith(".")}
    whole = {"figure_1.pdf", "figure_1.png", "figure_1_caption.md"}
    assert pictures == whole | {f"figure_1_{panel}.png" for panel in plans}


def test_the_table_holds_every_pair_of_both_panels(made):
    _, figure = made
    table = pd.read_csv(figure.table)
    assert set(table.columns) == {*COLUMNS, "descriptive_p"}
    assert set(json.loads(figure.table.with_suffix(".json").read_text())) == set(table.columns)
    assert set(table.panel) == {"G", "H"}
    pairs = table[table.group_b.notna()]
    assert len(pairs.groupby(["group_a", "group_b"])) == 6
    assert set(table[table.group_b.isna()].test) == {"omnibus"}
    # per layer and pair two tests, each at 4 epochs and at min(shape) indices
    assert (table.kind == "descriptive").sum() == 6 * 2 * ((4 + 32) + (4 + 32) + (4 + 32) + (4 + 4))
    assert set(pairs.size_a) == {16}
    assert not table.small_group.any()
    assert not table.simulated.any()


def test_the_summary_has_a_row_for_each_panel_layer_and_pair_in_front(made):
    _, figure = made
    table = pd.read_csv(figure.summary, dtype={"group_a": str, "group_b": str})
    assert list(table.columns) == list(SUMMARY_COLUMNS)
    assert table[["panel", "layer"]].drop_duplicates().shape == (4, 2)
    assert (table.group_a + table.group_b).str.fullmatch("03").sum() == 4


def test_a_figure_opens_each_run_once_and_reads_each_layer_once(made, monkeypatch):
    plans, figure = made
    opened, layers = Counter(), Counter()
    open_file, read_layer = read.open_checked, layer_arrays.read_layer

    def count_file(path):
        opened[path] += 1
        return open_file(path)

    def count_layer(file, layer, *options):
        layers[file.filename, layer] += 1
        return read_layer(file, layer, *options)

    monkeypatch.setattr(read, "open_checked", count_file)
    for module in (read, layer_arrays):
        monkeypatch.setattr(module, "read_layer", count_layer)
    for draw in ("draw_figure", "draw_panel"):
        monkeypatch.setattr(figure_module, draw, lambda *_: None)
    figure.stamp.unlink()
    update_figure(plan_figure(plans))
    assert opened == dict.fromkeys({plan.folder.spectra for plan in plans.values()}, 1)
    assert len(layers) == 6 * 2
    assert set(layers.values()) == {1}


def test_a_second_call_does_nothing(made, caplog):
    plans, figure = made
    before = {path: path.stat().st_mtime_ns for path in figure.pictures}
    with caplog.at_level("INFO"):
        update_figure(plan_figure(plans))
    assert "figure 1 is up to date" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in figure.pictures}


@pytest.mark.slow
def test_a_picture_that_was_lost_is_drawn_again(made):
    plans, figure = made
    figure.panel("C").unlink()
    update_figure(plan_figure(plans))
    assert figure.panel("C").exists()


@pytest.mark.slow
def test_a_supplement_tests_and_draws_the_differences_of_c_to_f(made, tmp_path):
    plans, _ = made
    runs = plans["A"].folder.path.parent
    shutil.copytree(runs, tmp_path / runs.name)
    configs = panels_of_figure(CONF, "fig1", [*TINY, f"output_dir={tmp_path}", "supplement=true"])
    figure = update_figure(plan_figure({panel: plan_run(config) for panel, config in configs.items()}))
    assert set(pd.read_csv(figure.table).panel) == set("CDEFGH")
    assert all(figure.panel(f"{panel}_differences").exists() for panel in "CDEF")


def test_a_classifier_in_a_panel_that_is_not_tested_needs_no_retrained_networks(made, tmp_path, monkeypatch):
    """As in panels E and F of figure 2."""
    from autospec.experiments.run import run

    plans, _ = made
    shutil.copytree(plans["A"].folder.path.parent.parent, tmp_path, dirs_exist_ok=True)
    configs = panels_of_figure(CONF, "fig1", [*TINY, f"output_dir={tmp_path}"])
    of_panels = {panel: plan_run(config) for panel, config in configs.items()}
    of_panels["E"] = plan_run(replace(of_panels["B"].config, activation=of_panels["D"].config.activation))
    run(of_panels["E"])
    for draw in ("draw_figure", "draw_panel"):
        monkeypatch.setattr(figure_module, draw, lambda *_: None)
    assert set(pd.read_csv(update_figure(plan_figure(of_panels)).table).panel) == {"G", "H"}
    assert not ratios_path(of_panels["E"]).exists()


def test_differences_need_two_groups(tmp_path):
    with pytest.raises(AutoSpecError, match=r"panels G and H compare two groups, but there is 1 \(3\)"):
        _trained(tmp_path, "dataset.digits=[3]", "epochs=1")


def test_pairs_in_front_must_exist(tmp_path):
    with pytest.raises(AutoSpecError, match="'7' is no group; there are 0, 1, 2, 3"):
        _trained(tmp_path, "figure.pairs=[['0','7']]", "epochs=1")


INCOMPARABLE = {
    "one group": ("dataset", {"digits": [3]}, "panels G and H compare two groups, but there is 1"),
    "no such group": ("figure", {"pairs": [["0", "7"]]}, "figure.pairs: '7' is no group of the run"),
    "no gradient": ("introspection", {"statistics": ["adjoint"]}, "a figure shows gradient spectra; add gradient"),
}


@pytest.mark.parametrize("mistake", INCOMPARABLE)
def test_what_could_not_be_compared_is_known_before_anything_is_trained(made, mistake):
    node, values, expected = INCOMPARABLE[mistake]
    plans, _ = made
    check_comparisons(plan_figure(plans))

    def changed(plan):
        changes = {node: replace(getattr(plan.config, node), **values)}
        return replace(plan, config=replace(plan.config, **changes))

    with pytest.raises(AutoSpecError, match=expected):
        check_comparisons(plan_figure({panel: changed(plan) for panel, plan in plans.items()}))


def test_figures_are_known_by_number():
    assert figure_names(CONF)[0] == "fig1"
