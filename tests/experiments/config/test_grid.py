"""The configuration files: the paper's two tables, and every other cell of the grid."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import (
    ARCHITECTURES_OF,
    chosen_figures,
    compose_config,
    figure_names,
    panels_of_figure,
)
from autospec.experiments.config.run_id import run_id
from autospec.experiments.config.schema import DATASET_SCHEMAS, Activation, Architecture, Task

CONF = Path(__file__).resolve().parents[3] / "conf"

ACTIVATIONS = [kind for kind in Activation if kind is not Activation.custom]

FIGURES = {
    "fig1": ("mnist", "mlp"),
    "fig2": ("mnist", "cnn2d"),
    "fig3": ("sinusoid", "rnn"),
    "fig4": ("freesurfer", "mlp"),
    "fig5": ("cobre_timeseries", "lstm"),
    "fig6": ("cobre_timeseries", "bert"),
    "fig7": ("cobre_timeseries", "cnn1d"),
    "fig8": ("cobre_maps", "cnn3d"),
}
"""The paper's table 2."""

PANELS = {
    "A": ("autoencoding", 32, "relu", "spectra"),
    "B": ("classification", 32, "relu", "spectra"),
    "C": ("autoencoding", 32, "tanh", "spectra"),
    "D": ("autoencoding", 32, "sigmoid", "spectra"),
    "E": ("autoencoding", 8, "relu", "spectra"),
    "F": ("autoencoding", 64, "relu", "spectra"),
    "G": ("autoencoding", 32, "relu", "differences"),
    "H": ("classification", 32, "relu", "differences"),
}
"""The paper's table 1."""

PANELS_OF_FIGURE_2 = {
    "A": ("autoencoding", 8, "relu", "spectra"),
    "B": ("classification", 8, "relu", "spectra"),
    "C": ("autoencoding", 8, "sigmoid", "spectra"),
    "D": ("autoencoding", 8, "tanh", "spectra"),
    "E": ("classification", 8, "sigmoid", "spectra"),
    "F": ("classification", 8, "tanh", "spectra"),
    "G": ("autoencoding", 8, "relu", "differences"),
    "H": ("classification", 8, "relu", "differences"),
}
"""As the captions of the paper's figure 2 have it."""

DIAGNOSIS_BY_SEX = [["SZ/men", "HC/men"], ["SZ/women", "HC/women"]]
PAIRS = {name: [["0", "3"]] for name in ("fig1", "fig2", "fig3")}
PAIRS |= {"fig4": [["SZ", "HC"]]} | dict.fromkeys(("fig5", "fig6", "fig7", "fig8"), DIAGNOSIS_BY_SEX)


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, DictConfig]]:
    return {name: panels_of_figure(CONF, name) for name in figure_names(CONF)}


def test_figures_are_the_papers(figures):
    assert list(figures) == list(FIGURES)


@pytest.mark.parametrize("figure", FIGURES)
def test_expanded_grid_is_the_papers_two_tables(figures, figure):
    table = PANELS_OF_FIGURE_2 if figure == "fig2" else PANELS
    expanded = {}
    for panel, config in figures[figure].items():
        experiment = check_config(config)
        assert (experiment.dataset.name, experiment.architecture.value) == FIGURES[figure]
        assert experiment.figure.number == int(figure[3:])
        own = (experiment.task.value, experiment.width, experiment.activation.value, experiment.panel.shows.value)
        expanded[panel] = own
    assert expanded == table


@pytest.mark.parametrize("figure", FIGURES)
def test_difference_panels_show_runs_of_a_and_b(figures, figure):
    names = {panel: run_id(check_config(config), "data") for panel, config in figures[figure].items()}
    assert (names["G"], names["H"]) == (names["A"], names["B"])
    assert len(set(names.values())) == 6


@pytest.mark.parametrize("figure", FIGURES)
def test_pairs_in_front(figures, figure):
    config = check_config(figures[figure]["G"])
    assert config.figure.pairs == PAIRS[figure]
    if figure != "fig8":  # grouped as figures 5 to 7 are, but seconds to simulate
        groups = datasets.load(config.dataset).groups
        assert {name for pair in config.figure.pairs for name in pair} <= set(groups)


def test_figures_5_to_8_cross_diagnosis_and_sex(figures):
    grouped = {figure: list(panels["A"].dataset.group_by) for figure, panels in figures.items()}
    assert grouped["fig4"] == ["diagnosis"]
    assert all(grouped[figure] == ["diagnosis", "sex"] for figure in ("fig5", "fig6", "fig7", "fig8"))


@pytest.mark.parametrize("figure", FIGURES)
def test_paper_preset_composes(figure):
    assert check_config(compose_config(CONF, [f"figure={figure}", "panel=A", "preset=paper"])).epochs == 1000


@pytest.mark.parametrize("variant", [("deep_thin", 3, 8), ("wide_shallow", 1, 128)])
@pytest.mark.parametrize("choice", [["figure=fig2", "panel=F"], ["figure=fig5", "panel=F"]])
def test_variants_override_figure_and_panel(variant, choice):
    name, depth, width = variant
    config = compose_config(CONF, [*choice, f"variant={name}"])
    assert (config.depth, config.width) == (depth, width)


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["figure=fig2", "panel=C", "activation=relu"], "activation", Activation.relu),
        (["figure=fig2", "panel=E", "task=autoencoding"], "task", Task.autoencoding),
        (["figure=fig2", "width=16"], "width", 16),
        (["figure=fig1", "architecture=cnn2d"], "architecture", Architecture.cnn2d),
        (["figure=fig5", "depth=2"], "depth", 2),
        (["figure=fig2", "panel=F", "variant=deep_thin", "width=5"], "width", 5),
    ],
)
def test_command_line_overrides_everything(overrides, key, value):
    assert compose_config(CONF, overrides)[key] == value


def test_every_dataset_has_its_architectures():
    """But for those that users bring, of which nobody knows what they take."""
    assert set(ARCHITECTURES_OF) == set(DATASET_SCHEMAS) - {"custom"}
    there = {kind.value for kind in Architecture} - {"custom"}
    assert {name for names in ARCHITECTURES_OF.values() for name in names} == there


def test_every_cell_of_the_grid_composes():
    """7 data sets × their architectures × 2 tasks × 3 activations × 3 widths."""
    names = set()
    for data, architectures in ARCHITECTURES_OF.items():
        for architecture in architectures:
            config = compose_config(CONF, [f"dataset={data}", f"architecture={architecture}"])
            for task, activation, width in itertools.product(Task, ACTIVATIONS, (8, 32, 64)):
                # as Hydra does: the command line's values are merged last (composing each anew takes minutes)
                values = {"task": task.value, "activation": activation.value, "width": width}
                names.add(run_id(check_config(OmegaConf.merge(config, values)), "data"))
    assert len(names) == 19 * 18


@pytest.mark.parametrize("file", sorted(CONF.glob("exception/*.yaml")), ids=lambda file: file.stem)
def test_exceptions_belong_to_a_figure_and_a_panel(file):
    figure, panel = file.stem.split("-")
    assert figure in FIGURES
    assert panel in PANELS


@pytest.mark.parametrize("file", sorted(CONF.glob("size/*.yaml")), ids=lambda file: file.stem)
def test_sizes_belong_to_a_preset_and_a_cell(file):
    preset, data, architecture = file.stem.split("-")
    assert (CONF / "preset" / f"{preset}.yaml").is_file()
    assert architecture in ARCHITECTURES_OF[data]


def test_figures_are_asked_for_by_number_or_name():
    assert chosen_figures(CONF, "all") == list(FIGURES)
    assert chosen_figures(CONF, "4, fnc,1") == ["fig4", "fnc", "fig1"]
    with pytest.raises(AutoSpecError, match=r"^--figure 1,9: there is no figure 9; allowed are 1, 2, .*, 8, fnc$"):
        chosen_figures(CONF, "1,9")
