"""What the panels of the paper's figures show, from their configurations and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pandas as pd

from autospec.analysis.run_tables import RunTables
from autospec.errors import AutoSpecError
from autospec.experiments.config.grid import DIFFERENCE_PANELS
from autospec.experiments.config.pairs import pairs_in_front
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.config.targets import short_name
from autospec.experiments.report.figure_plan import PanelPlan
from autospec.figures import run_panels
from autospec.figures.contents import DifferencePanel, Provenance, SpectraPanel
from autospec.figures.run_panels import Heading
from autospec.store.groups import Pair
from autospec.store.permutations import PermutationRatios

TASK_NAMES = {"autoencoding": "Autoencoder", "classification": "Classifier"}
ACTIVATION_NAMES = {"relu": "ReLU", "tanh": "tanh", "sigmoid": "sigmoid"}


def panel_title(config: ExperimentConfig) -> str:
    """Return a panel's title: task, width and activation."""
    task = TASK_NAMES[config.task.value]
    own = config.nonlinearity
    activation = short_name(own) if own else ACTIVATION_NAMES[config.activation.value]
    return f"{task} · width {config.width} · {activation}"


def figure_title(config: ExperimentConfig, provenance: Provenance) -> str:
    """Return a figure's title: the user's own study in front, or that the data are simulated.

    Args:
        config: The configuration of one of its panels.
        provenance: What is known of its data.

    Returns:
        Such as ``my_study: FreeSurfer volumes, multi-layer perceptron``.
    """
    study = provenance.facts.study if provenance.facts is not None else None
    simulated = " (simulated data)" if provenance.simulated else ""
    return f"{f'{study}: ' if study else ''}{config.figure.title}{simulated}"


@dataclass(frozen=True)
class PanelRuns:
    """The runs of a panel, read, and what of them it shows.

    Attributes:
        letter: The panel's letter.
        config: Its configuration.
        is_tested: Whether its group differences are tested.
        seeds: Its run, then runs that differ from it in their seed.
        retrained: The ratios of networks with permuted labels, of every seed; none where no label is learned.
        pairs: The pairs of groups in front.
        layers: The layers shown.
        labels: The names of its groups for readers.
    """

    letter: str
    config: ExperimentConfig
    is_tested: bool
    seeds: Sequence[RunTables]
    retrained: Sequence[PermutationRatios]
    pairs: tuple[Pair, ...]
    layers: tuple[str, ...]
    labels: Mapping[str, str]


def panel_runs(panel: PanelPlan, seeds: Sequence[RunTables], retrained: Sequence[PermutationRatios]) -> PanelRuns:
    """Choose what a panel shows of its runs.

    Args:
        panel: The panel's plan.
        seeds: Its runs, one for each seed of the plan.
        retrained: The ratios of their networks with permuted labels.

    Returns:
        The runs, with pairs of groups and layers that they have.

    Raises:
        AutoSpecError: ``figure.pairs`` or ``figure.layers`` names what the run does not have.
    """
    spectra, figure = seeds[0].spectra, panel.config.figure
    pairs = pairs_in_front(figure.pairs, spectra.group_names)
    layers = _layers_shown(figure.layers, spectra.layers)
    labels = {group: group_label(panel.config, group) for group in spectra.group_names}
    return PanelRuns(panel.letter, panel.config, panel.is_tested, seeds, retrained, pairs, layers, labels)


def _layers_shown(patterns: Sequence[str] | None, layers: Sequence[str]) -> tuple[str, ...]:
    """The layers that a figure shows: all that were recorded, or those that ``figure.layers`` names."""
    shown = tuple(name for name in layers if patterns is None or any(fnmatchcase(name, one) for one in patterns))
    if not shown:
        raise AutoSpecError(f"figure.layers={patterns}: fits no layer; there are {', '.join(layers)}")
    return shown


def spectra_panel(runs: PanelRuns) -> SpectraPanel:
    """Make the contents of one of the panels A–F: the gradient spectra of its runs."""
    return run_panels.spectra_panel(runs.seeds, _heading(runs, runs.letter))


def difference_panel(runs: PanelRuns, tests: pd.DataFrame) -> DifferencePanel:
    """Make the contents of panel G or H, or of a supplement's.

    Args:
        runs: The panel's runs.
        tests: The panel's part of the figure's table.

    Returns:
        The differences of the pairs in front.
    """
    letter = runs.letter if runs.letter in DIFFERENCE_PANELS else f"{runs.letter}_differences"
    paper = runs.config.figure.tests == "paper"
    return run_panels.difference_panel(runs.seeds[0], tests, runs.pairs, _heading(runs, letter), paper)


def _heading(runs: PanelRuns, letter: str) -> Heading:
    return Heading(
        letter=letter,
        title=panel_title(runs.config),
        layers=runs.layers,
        label=runs.labels.__getitem__,
        min_group=runs.config.figure.min_group,
        seeds=len(runs.seeds),
        pairs=runs.pairs,
    )


def group_label(config: ExperimentConfig, group: str) -> str:
    """Return a group's name for readers: a number says what it numbers.

    Args:
        config: The configuration of its run.
        group: The group.

    Returns:
        Such as ``digit 3``, or the name itself.
    """
    return f"{'/'.join(config.dataset.group_by)} {group}" if group.isdigit() else group
