"""What the panels of the paper's figures show, from their configurations and runs."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial

import pandas as pd

from autospec.analysis.run_tables import RunTables
from autospec.errors import AutoSpecError
from autospec.experiments.config.pairs import pairs_in_front
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.config.targets import short_name
from autospec.figures import run_panels
from autospec.figures.contents import DifferencePanel, Provenance, SpectraPanel
from autospec.figures.run_panels import Heading

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


def spectra_panel(letter: str, config: ExperimentConfig, seeds: Sequence[RunTables]) -> SpectraPanel:
    """Make the contents of one of the panels A–F.

    Args:
        letter: The panel's letter.
        config: Its configuration.
        seeds: Its run, then runs that differ from it in their seed.

    Returns:
        The gradient spectra of these runs.

    Raises:
        AutoSpecError: ``figure.layers`` fits no layer.
    """
    return run_panels.spectra_panel(seeds, _heading(letter, config, seeds))


def difference_panel(
    letter: str, config: ExperimentConfig, seeds: Sequence[RunTables], tests: pd.DataFrame
) -> DifferencePanel:
    """Make the contents of panel G or H.

    Args:
        letter: The panel's letter.
        config: Its configuration.
        seeds: Its run, then runs that differ from it in their seed.
        tests: The panel's part of the figure's table.

    Returns:
        The differences of the pairs in front.

    Raises:
        AutoSpecError: ``figure.pairs`` or ``figure.layers`` names what the run does not have.
    """
    pairs = pairs_in_front(config.figure.pairs, seeds[0].spectra.group_names)
    paper = config.figure.tests == "paper"
    return run_panels.difference_panel(seeds[0], tests, pairs, _heading(letter, config, seeds), paper)


def _heading(letter: str, config: ExperimentConfig, seeds: Sequence[RunTables]) -> Heading:
    return Heading(
        letter=letter,
        title=panel_title(config),
        layers=_layers_shown(config, seeds[0].spectra.layers),
        label=partial(group_label, config),
        min_group=config.figure.min_group,
        seeds=len(seeds),
        pairs=pairs_in_front(config.figure.pairs, seeds[0].spectra.group_names),
    )


def _layers_shown(config: ExperimentConfig, layers: Sequence[str]) -> list[str]:
    """The layers that a figure shows: all that were recorded, or those that ``figure.layers`` names."""
    patterns = config.figure.layers
    shown = [name for name in layers if patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not shown:
        raise AutoSpecError(f"figure.layers={patterns}: fits no layer; there are {', '.join(layers)}")
    return shown


def group_label(config: ExperimentConfig, group: str) -> str:
    """Return a group's name for readers: a number says what it numbers.

    Args:
        config: The configuration of its run.
        group: The group.

    Returns:
        Such as ``digit 3``, or the name itself.
    """
    return f"{'/'.join(config.dataset.group_by)} {group}" if group.isdigit() else group
