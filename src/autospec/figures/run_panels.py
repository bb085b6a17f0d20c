"""From a run's tables to what a panel shows; the same for the paper's figures and for anybody's file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan

import pandas as pd

from autospec.analysis.comparison import Comparison
from autospec.analysis.joint_tests import joint_sentences
from autospec.analysis.run_tables import RunTables
from autospec.analysis.summary import drawn_rows, left_out, orient, retrained, verdicts
from autospec.figures.contents import DifferencePanel, LayerTitle, Provenance, SpectraPanel
from autospec.figures.data_facts import read_facts
from autospec.store.groups import Pair
from autospec.store.read import Spectra
from autospec.store.schema import GRADIENT


def label_as_stored(group: str) -> str:
    """Return a group's name as it stands in the file."""
    return group


@dataclass(frozen=True)
class Heading:
    """What a panel says beside its spectra, and which layers it shows.

    Attributes:
        letter: The panel's letter.
        title: Its title.
        layers: The layers shown.
        label: Names a group for readers.
        min_group: Smaller groups are flagged.
        seeds: The number of runs that differ in their seed.
        note: What the footer says of layers or epochs that are not shown; None says which layers are.
        pairs: The pairs of groups that the figure compares.
    """

    letter: str
    title: str
    layers: Sequence[str]
    label: Callable[[str], str] = label_as_stored
    min_group: int = 0
    seeds: int = 1
    note: str | None = None
    pairs: Sequence[Pair] = ()


def spectra_panel(runs: Sequence[RunTables], heading: Heading, groups: Sequence[str] | None = None) -> SpectraPanel:
    """Take the gradient spectra of a run, and of runs that differ from it in their seed.

    Args:
        runs: The run, then those of further seeds.
        heading: What the panel says.
        groups: The groups drawn in front; None takes the disjoint groups.

    Returns:
        The panel's contents.
    """
    run = runs[0]
    shown = run.groups if groups is None else tuple(groups)
    frames = [one.frame.assign(seed=place) for place, one in enumerate(runs)]
    return SpectraPanel(
        letter=heading.letter,
        title=heading.title,
        layers=layer_titles(run.spectra, heading.layers),
        groups=shown,
        group_labels={group: heading.label(group) for group in shown},
        frame=pd.concat(frames, ignore_index=True),
        provenance=_provenance(run, heading, shown),
        seeds=len(runs),
        pairs=tuple(heading.pairs),
    )


def difference_panel(
    run: RunTables, tests: pd.DataFrame, pairs: Sequence[Pair], heading: Heading, paper: bool = False
) -> DifferencePanel:
    """Take the differences of some pairs of a run's groups.

    Args:
        run: The run.
        tests: Its tests, with the columns of ``analysis.figure_table.COLUMNS``.
        pairs: The pairs shown.
        heading: What the panel says; its title follows the pair's name.
        paper: Whether margins show the paper's descriptive tests.

    Returns:
        The panel's contents.
    """
    # what the tests say, then what the spectra show
    drawn = orient(tests[tests["statistic"] == GRADIENT], pairs)
    shown = drawn[drawn["test"] == "paper_scaled"] if paper else drawn_rows(drawn)
    words = verdicts(drawn, heading.label)
    untested = (*retrained(drawn), *left_out(drawn, heading.label))
    joint = joint_sentences(tests)
    compared = run.comparisons_of(pairs)
    names = {pair: _pair_name(run.spectra, pair, heading) for pair in pairs}
    return DifferencePanel(
        letter=heading.letter,
        title=" · ".join(
            filter(None, (next(iter(names.values())) if len(names) == 1 else "Differences", heading.title))
        ),
        layers=layer_titles(run.spectra, heading.layers),
        pairs=tuple(pairs),
        pair_names=names,
        ratios=_ratios(compared),
        tests=shown,
        cosines=cosines(run.spectra, pairs),
        provenance=_provenance(run, heading, run.groups),
        paper=paper,
        verdicts=words,
        side_names={(a, b): (heading.label(a), heading.label(b)) for a, b in pairs},
        left_out=untested,
        joint=joint,
        grey=_values_left_out(compared),
        seeds=heading.seeds,
    )


def layer_titles(spectra: Spectra, layers: Iterable[str]) -> tuple[LayerTitle, ...]:
    """Return the titles of some layers: what their weights map, inputs to outputs."""
    return tuple(map(partial(_layer_title, spectra), layers))


def _layer_title(spectra: Spectra, name: str) -> LayerTitle:
    attributes = spectra[name].attrs
    rows, columns = (int(size) for size in attributes["shape"])
    # the weights of these are stored with the inputs first
    inputs_first = str(attributes["kind"]).startswith(("ConvTranspose", "Embedding"))
    return LayerTitle(name, rows, columns) if inputs_first else LayerTitle(name, columns, rows)


def _pair_name(spectra: Spectra, pair: Pair, heading: Heading) -> str:
    """What is compared, with the subjects in each group, and whether they are few."""
    size = spectra.sizes

    def named(group: str) -> str:
        few = f" < {heading.min_group}" if size[group] < heading.min_group else ""
        size_text = f" (n = {size[group]:.0f}{few})" if not isnan(size[group]) else ""
        return f"{heading.label(group)}{size_text}"

    return f"{named(pair[0])} against {named(pair[1])}"


def _values_left_out(compared: Sequence[Comparison]) -> str:
    """How much of the maps is grey, and why."""
    values = sum(comparison.beyond_rank.size for comparison in compared)
    beyond = sum(int(comparison.beyond_rank.sum()) for comparison in compared)
    below = sum(int(comparison.below_floor.sum()) for comparison in compared)
    return (
        f"Of the maps' values {100 * beyond / values:.1f} % lie beyond the rank bound and {100 * below / values:.1f} % "
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


def cosines(spectra: Spectra, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Compute the cosine and the cancellation of pairs of groups' gradients.

    ``cancellation`` is the pair's own ``‖∇_a + ∇_b‖ / (‖∇_a‖ + ‖∇_b‖)`` of gradients before scaling, by which a test
    is refused; NaN where a gradient is zero, or only leading singular values are stored.

    Args:
        spectra: The run's spectra.
        pairs: The pairs of groups.

    Returns:
        Columns epoch, cosine, cancellation, layer, group_a, group_b: a row for each layer, pair and recorded epoch.
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


def _provenance(run: RunTables, heading: Heading, groups: Sequence[str]) -> Provenance:
    spectra = run.spectra
    return Provenance(
        run_id=spectra.run_id,
        source=str(spectra.attributes.get("source", spectra.where)),
        simulated=spectra.simulated if "simulated" in spectra.attributes else None,
        seed=int(spectra.attributes["seed"]) if "seed" in spectra.attributes else None,
        min_group=heading.min_group,
        layers_shown=_layers_sentence(spectra, heading.layers) if heading.note is None else heading.note,
        sizes={heading.label(group): spectra.sizes[group] for group in groups},
        epochs=int(spectra.epochs[-1]) + 1 if spectra.run_id and len(spectra.epochs) else None,
        facts=read_facts(spectra.attributes),
    )


def _layers_sentence(spectra: Spectra, shown: Sequence[str]) -> str:
    recorded = len(spectra.layers)
    if len(shown) == recorded:
        return ""
    return f"{len(shown)} of {recorded} layers are shown ({', '.join(shown)}); the table holds all."
