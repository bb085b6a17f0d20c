"""From a run's spectra to what a panel shows."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial

import pandas as pd

from autospec.analysis.comparison import Comparison, comparisons
from autospec.analysis.summary import drawn_rows, left_out, oriented, verdicts
from autospec.errors import AutoSpecError
from autospec.experiments.config.pairs import pairs_in_front
from autospec.experiments.config.schema import ExperimentConfig
from autospec.figures.contents import DifferencePanel, LayerTitle, Provenance, SpectraPanel
from autospec.store.read import Spectra
from autospec.store.schema import ALL

TASK_NAMES = {"autoencoding": "Autoencoder", "classification": "Classifier"}
ACTIVATION_NAMES = {"relu": "ReLU", "tanh": "tanh", "sigmoid": "sigmoid"}


def panel_title(config: ExperimentConfig) -> str:
    """Task, width and activation: every panel's title names them."""
    task, activation = TASK_NAMES[config.task.value], ACTIVATION_NAMES[config.activation.value]
    return f"{task} · width {config.width} · {activation}"


def spectra_panel(letter: str, config: ExperimentConfig, seeds: Sequence[Spectra]) -> SpectraPanel:
    """Panels A–F: the gradient spectra of a run, and of runs that differ from it in their seed."""
    spectra = seeds[0]
    frames = [own.to_frame("gradient").assign(seed=place) for place, own in enumerate(seeds)]
    return SpectraPanel(
        letter=letter,
        title=panel_title(config),
        layers=_titles(config, spectra),
        groups=_disjoint(spectra),
        group_labels={group: _label(config, group) for group in _disjoint(spectra)},
        frame=pd.concat(frames, ignore_index=True),
        provenance=_provenance(config, spectra),
        seeds=len(seeds),
    )


def difference_panel(letter: str, config: ExperimentConfig, spectra: Spectra, tests: pd.DataFrame) -> DifferencePanel:
    """Panels G and H: the differences of the pairs in front; ``tests`` is the panel's part of the table."""
    pairs = pairs_in_front(config.figure.pairs, spectra.group_names)
    drawn = oriented(tests[tests["statistic"] == "gradient"], pairs)
    paper = config.figure.tests == "paper"
    compared = list(comparisons(spectra.to_frame("gradient"), list(pairs)))
    names = {pair: _pair_name(config, spectra, pair) for pair in pairs}
    return DifferencePanel(
        letter=letter,
        title=f"{next(iter(names.values())) if len(names) == 1 else 'Differences'} · {panel_title(config)}",
        layers=_titles(config, spectra),
        pairs=pairs,
        pair_names=names,
        ratios=_ratios(compared),
        tests=drawn[drawn["test"] == "paper_scaled"] if paper else drawn_rows(drawn),
        cosines=cosines(spectra, pairs),
        provenance=_provenance(config, spectra),
        paper=paper,
        verdicts=verdicts(drawn, partial(_label, config)),
        left_out=(_cells_left_out(compared), *left_out(drawn, partial(_label, config))),
        seeds=1 + len(set(config.figure.seeds) - {config.seed}),
    )


def _titles(config: ExperimentConfig, spectra: Spectra) -> tuple[LayerTitle, ...]:
    titles = []
    for name in _shown(config, spectra):
        attributes = spectra[name].attrs
        rows, columns = (int(size) for size in attributes["shape"])
        # the weights of these are stored with the inputs first
        inputs_first = str(attributes["kind"]).startswith(("ConvTranspose", "Embedding"))
        titles.append(LayerTitle(name, rows, columns) if inputs_first else LayerTitle(name, columns, rows))
    return tuple(titles)


def _shown(config: ExperimentConfig, spectra: Spectra) -> list[str]:
    """The layers that a figure shows: all that were recorded, or those that ``figure.layers`` names."""
    patterns = config.figure.layers
    shown = [n for n in spectra.layers if patterns is None or any(fnmatchcase(n, p) for p in patterns)]
    if not shown:
        raise AutoSpecError(f"figure.layers={patterns}: fits no layer; there are {', '.join(spectra.layers)}")
    return shown


def _disjoint(spectra: Spectra) -> tuple[str, ...]:
    return tuple(name for name in spectra.group_names if spectra.members[name] == frozenset({name}) and name != ALL)


def _label(config: ExperimentConfig, group: str) -> str:
    """A group's name for readers: a number says what it numbers."""
    return f"{'/'.join(config.dataset.group_by)} {group}" if group.isdigit() else group


def _pair_name(config: ExperimentConfig, spectra: Spectra, pair: tuple[str, str]) -> str:
    """What is compared, with the people in each group, and whether they are few."""
    size = spectra.groups.set_index("group")["size"]

    def named(group: str) -> str:
        few = f" < {config.figure.min_group}" if size[group] < config.figure.min_group else ""
        return f"{_label(config, group)} (n = {size[group]:.0f}{few})"

    return f"{named(pair[0])} against {named(pair[1])}"


def _cells_left_out(compared: Sequence[Comparison]) -> str:
    """How much of the maps is grey, and why."""
    cells = sum(own.beyond_rank.size for own in compared)
    beyond, below = (sum(int(getattr(own, name).sum()) for own in compared) for name in ("beyond_rank", "below_floor"))
    return (
        f"of the maps' cells {100 * beyond / cells:.1f} % lie beyond the rank bound and {100 * below / cells:.1f} % "
        "below a noise floor."
    )


def _ratios(compared: Sequence[Comparison]) -> pd.DataFrame:
    parts = []
    for comparison in compared:
        wide = pd.DataFrame(
            comparison.log_ratio(),
            index=pd.Index(comparison.epochs, name="epoch"),
            columns=pd.Index(comparison.indices, name="index"),
        )
        tidy = wide.reset_index().melt(id_vars="epoch", var_name="index", value_name="log2_ratio")
        parts.append(tidy.assign(layer=comparison.layer, group_a=comparison.a, group_b=comparison.b))
    return pd.concat(parts, ignore_index=True)


def cosines(spectra: Spectra, pairs: tuple[tuple[str, str], ...]) -> pd.DataFrame:
    """Columns epoch, cosine, cancellation, layer, group_a, group_b: a row for each layer, pair and recorded epoch.

    ``cancellation`` is the pair's own ``‖∇_a + ∇_b‖ / (‖∇_a‖ + ‖∇_b‖)`` of gradients before scaling, by which a test
    is refused; NaN where a gradient is zero, or only leading singular values are stored.
    """
    parts = []
    for layer in spectra.layers:
        values = spectra[layer]
        norm = (values["gradient"] ** 2).sum("index", skipna=False) ** 0.5
        whole = values.sizes["index"] == min(values.attrs["shape"])
        for group_a, group_b in pairs:
            cosine = values["cosine"].sel(group=group_a, other_group=group_b, drop=True).astype(float)
            a, b = (norm.sel(group=group, drop=True).astype(float) for group in (group_a, group_b))
            of_sum = (a**2 + b**2 + 2 * a * b * cosine).clip(min=0) ** 0.5
            table = cosine.to_dataframe(name="cosine")
            table["cancellation"] = (of_sum / (a + b)).to_series() if whole else float("nan")
            parts.append(table.reset_index().assign(layer=layer, group_a=group_a, group_b=group_b))
    return pd.concat(parts, ignore_index=True)


def _provenance(config: ExperimentConfig, spectra: Spectra) -> Provenance:
    sizes = spectra.groups.set_index("group")["size"]
    return Provenance(
        run_id=spectra.run_id,
        source=str(spectra.attributes.get("source", "")),
        simulated=spectra.simulated,
        seed=config.seed,
        min_group=config.figure.min_group,
        layers_shown=_layers_sentence(config, spectra),
        sizes={_label(config, group): float(sizes[group]) for group in _disjoint(spectra)},
    )


def _layers_sentence(config: ExperimentConfig, spectra: Spectra) -> str:
    shown, recorded = _shown(config, spectra), len(spectra.layers)
    if len(shown) == recorded:
        return ""
    return f"{len(shown)} of {recorded} layers are shown ({', '.join(shown)}); the table holds all."
