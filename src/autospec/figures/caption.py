"""A figure's caption, ready for a paper: what is drawn, how it was tested, and what makes it true."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from autospec.figures.contents import DifferencePanel, Panel, Provenance, SpectraPanel
from autospec.figures.data_facts import adjustment_sentence, extent_words, imbalance_sentence
from autospec.figures.footer import pairs_of_panels, runs_sentences
from autospec.figures.spectra_panel import FEWEST_FOR_BAND

READING_SPECTRA = (
    "Singular values of each group's mean gradient over training, layer by layer (above each axis: the layer, inputs → "
    "outputs of its weight). Colour tells the group; of each the first, fourth and eighth singular value are drawn (of "
    "narrow layers the first, second and fourth), a paler line for a higher index. Grey lines: every singular value of "
    "the whole batch. Light shade: below the whole batch's noise floor, where values are rounding; values of a group "
    "below its own floor are not drawn."
)
READING_DIFFERENCES = (
    "Where the spectra of two groups differ, layer by layer. Map: log2 of the first group's singular value over the "
    "second's, by epoch and index; red where the first group's is larger, blue where the second's is, at full colour "
    "from a factor of four; dark grey where the two cannot be compared (beyond the rank bound, or below a noise floor)."
)
READING_COSINE = (
    "Above the map: the cosine of the two groups' gradients (line) and their cancellation, ‖∇a + ∇b‖ / (‖∇a‖ + ‖∇b‖) "
    "(dotted, near 0 where they are opposite and cannot be told apart)."
)
READING_MARGINS = (
    "Margins over epochs and indices: medians{}; pale where three quarters of the cells cannot be compared."
)
EXCESS = (
    " of the log-ratio less its mean over permuted labels (plain where a pair is not tested), dark where q < 0.05 "
    "(Benjamini-Hochberg, exploratory)"
)
PAPER = ", dark where the paper's t-test has p < 0.05 (descriptive, not calibrated: no evidence of a difference)"
TESTED = (
    "p: labels were permuted over subjects (over images or sequences where these are the data); one distance over the "
    "whole trajectory, family-wise over the layers and pairs of a panel; the smallest possible p is one in one more "
    "than the permutations. It is a test of exchangeability. The map shows plain log-ratios, in which the smaller "
    "group's singular values are larger by chance alone; margins and directions take that out. Mixed signs: some "
    "singular values are larger in the one group, some in the other. Direction open: the 95 % interval of the median "
    "log-ratio has 0 in it."
)
ASSOCIATION = "A difference is an association with the label, which need not be its cause."


def figure_caption(number: int, title: str, panels: Sequence[Panel]) -> str:
    """Write the caption of a figure.

    Args:
        number: The figure's number.
        title: Its title.
        panels: Its panels.

    Returns:
        Markdown, a paragraph for spectra, for differences, for results and for data.
    """
    spectra = [panel for panel in panels if isinstance(panel, SpectraPanel)]
    differences = [panel for panel in panels if isinstance(panel, DifferencePanel)]
    paragraphs = [f"**Figure {number}. {title}.**"]
    if spectra:
        paragraphs.append(f"{_listed(spectra)} {READING_SPECTRA}{_seeds(spectra)}")
    if differences:
        paragraphs += [f"{_listed(differences)} {_reading(differences)}", *map(_results, differences)]
    paragraphs.append(" ".join(_data(panels)))
    return "\n\n".join(paragraphs) + "\n"


def _listed(panels: Sequence[Panel]) -> str:
    return " ".join(f"**({panel.letter})** {panel.title}." for panel in panels)


def _seeds(panels: Sequence[SpectraPanel]) -> str:
    seeds = max(panel.seeds for panel in panels)
    if seeds == 1:
        return ""
    band = "mean and one standard deviation" if seeds >= FEWEST_FOR_BAND else "a line for each"
    return f" {seeds} seeds: {band}; maps are of the first seed, tests of all together."


def _reading(panels: Sequence[DifferencePanel]) -> str:
    paper, tested = any(panel.paper for panel in panels), any(panel.tested for panel in panels)
    margins = READING_MARGINS.format(PAPER if paper else EXCESS if tested else "")
    return " ".join([READING_DIFFERENCES, READING_COSINE, margins, *[TESTED] * tested, ASSOCIATION])


def _results(panel: DifferencePanel) -> str:
    """What the primary test of each layer and pair found, why others have none, and how much of the maps is grey."""
    results = []
    for pair in panel.pairs:
        words = [
            f"{layer.name} {panel.verdicts[layer.name, *pair]}"
            for layer in panel.layers
            if panel.verdicts.get((layer.name, *pair), "not tested") != "not tested"
        ]
        name = panel.pair_names.get(pair, " against ".join(pair))
        results += [f"{name}: {'; '.join(words)}."] if words else []
    return " ".join([f"**{panel.letter}:**", *results, *panel.left_out, *panel.joint, *[panel.grey] * bool(panel.grey)])


def _data(panels: Sequence[Panel]) -> Iterator[str]:
    first = panels[0].provenance
    yield _source(first)
    if first.facts is not None:
        yield adjustment_sentence(first.facts)
        yield imbalance_sentence(first.facts, pairs_of_panels(panels), most=None)
        yield f"Used were {', '.join(extent_words(first.facts))}."
    if first.epochs is not None:
        yield f"Networks were trained for {first.epochs} epochs" + (
            "." if first.seed is None else f" with seed {first.seed}."
        )
    if first.layers_shown:
        yield first.layers_shown
    yield from runs_sentences(panels)


def _source(provenance: Provenance) -> str:
    sizes = ", ".join(f"{group} n = {size:.0f}" for group, size in provenance.sizes.items() if not math.isnan(size))
    few = [group for group, size in provenance.sizes.items() if size < provenance.min_group]
    kind = {True: "Simulated data", False: "Real data", None: "Data"}[provenance.simulated]
    small = f" Fewer than {provenance.min_group}: {', '.join(few)}." if few else ""
    return f"{kind}: {provenance.source}{f' ({sizes})' if sizes else ''}.{small}"
