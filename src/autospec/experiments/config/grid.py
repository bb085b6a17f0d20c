"""The grid of the paper: which architecture takes which data, and the panels of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from autospec.errors import AutoSpecError
from autospec.experiments.config.registry import register_schemas

ARCHITECTURES_OF: dict[str, tuple[str, ...]] = {
    "mnist": ("mlp", "cnn2d"),
    "sinusoid": ("mlp", "rnn", "lstm", "bert", "cnn1d"),
    "freesurfer": ("mlp",),
    "cobre_timeseries": ("mlp", "rnn", "lstm", "bert", "cnn1d", "cnn2d"),
    "cobre_fnc": ("mlp", "cnn2d"),
    "cobre_multiscale": ("mlp",),
    "cobre_maps": ("mlp", "cnn3d"),
}
"""The architectures that each data set's shape fits: recurrent cells, transformers and 1-D convolutions read time
series, a convolution of more dimensions an image or map of as many (components × time is an image, one sinusoid is
none), and a perceptron anything, flattened."""

SPECTRA_PANELS = ("A", "B", "C", "D", "E", "F")
DIFFERENCE_PANELS = {"G": "A", "H": "B"}
"""Panels of group differences, and the panel whose run they show."""


def compose_config(conf: Path, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration that the command line would compose from these overrides.

    Args:
        conf: the folder of configuration files, with ``config.yaml``.
        overrides: ``key=value`` each, as on the command line.

    Raises:
        Exception: as Hydra raises them; ``messages.explain`` turns any into a short message.
    """
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf.resolve())):
        return compose("config", overrides=list(overrides))


def panels_of_figure(conf: Path, figure: str, overrides: Sequence[str] = ()) -> dict[str, DictConfig]:
    """Return the configuration of each panel A–H of a figure, by its letter.

    Args:
        conf: the folder of configuration files.
        figure: ``fig1`` and so on.
        overrides: laid over every panel.
    """
    panels = (*SPECTRA_PANELS, *DIFFERENCE_PANELS)
    return {panel: compose_config(conf, [f"figure={figure}", f"panel={panel}", *overrides]) for panel in panels}


def figure_names(conf: Path) -> list[str]:
    """Return the names of the figures in ``conf/figure``, by their number: fig1, fig2, ..."""
    return sorted((path.stem for path in (conf / "figure").glob("fig*.yaml")), key=lambda name: int(name[3:]))


def chosen_figures(conf: Path, asked: str) -> list[str]:
    """Return the names of the figures that a text asks for.

    Args:
        conf: the folder of configuration files.
        asked: numbers of the paper's figures, or names of others, with commas between them; ``all`` is the paper's.

    Raises:
        AutoSpecError: for a figure that is not there.
    """
    numbered = figure_names(conf)
    # figures that are not the paper's have names: fnc
    named = sorted(path.stem for path in (conf / "figure").glob("*.yaml") if path.stem not in (*numbered, "none"))
    texts = [text.strip() for text in asked.split(",")]
    names = numbered if asked == "all" else [text if text in named else f"fig{text}" for text in texts]
    for name in names:
        if name not in (*numbered, *named):
            allowed = ", ".join([*(one.removeprefix("fig") for one in numbered), *named])
            raise AutoSpecError(f"--figure {asked}: there is no figure {name[3:]}; allowed are {allowed}")
    return names
