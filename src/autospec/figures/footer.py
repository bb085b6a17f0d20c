"""The few lines below a picture: what its data are and what makes it true; the caption beside it says the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autospec.figures.contents import DifferencePanel, Panel, Provenance, SpectraPanel
from autospec.figures.data_facts import adjustment_sentence, extent_words, imbalance_sentence
from autospec.figures.spectra_panel import FEWEST_FOR_BAND
from autospec.figures.style import SMALLEST_PT
from autospec.figures.wrapping import wrap

MOST_LINES = 5
MARGIN_IN = 0.15


def footer_lines(panels: Sequence[Panel], width: float, caption: str = "") -> list[str]:
    """Write the footer of a picture.

    Args:
        panels: What it shows.
        width: Its width in inches.
        caption: The file that says the rest; then the footer has five lines at most. Empty says everything here.

    Returns:
        Its lines, the most needed first.
    """
    needed, more = [*_data_sentences(panels)], [*_reading_sentences(panels)]
    if not caption:
        return _wrap([*needed, *more, *_rest(panels)], width)
    pointer = f"Caption: {caption}."
    for count in range(len(more), -1, -1):
        lines = _wrap([*needed, *more[:count], pointer], width)
        if len(lines) <= MOST_LINES:
            return lines
    # what is needed is long here, such as many groups: the pointer has a line of its own
    return [*wrap(" ".join(needed), width - MARGIN_IN, SMALLEST_PT, MOST_LINES - 1), pointer]


def _wrap(sentences: Sequence[str], width: float) -> list[str]:
    return wrap(" ".join(sentences), width - MARGIN_IN, SMALLEST_PT)


def _data_sentences(panels: Sequence[Panel]) -> list[str]:
    """What the data are, what was taken out of them and how much of them was used."""
    first = panels[0].provenance
    sentences = [_source_sentence(first)]
    words = [] if first.epochs is None else [f"{first.epochs} epochs"]
    if first.seed is not None:
        words.append(f"seed {first.seed}")
    if first.facts is not None:
        sentences.append(adjustment_sentence(first.facts))
        sentences.append(imbalance_sentence(first.facts, pairs_of_panels(panels)))
        words = [*extent_words(first.facts), *words]
    if words:
        text = "; ".join(words)
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    if first.layers_shown:
        sentences.append(first.layers_shown)
    return sentences


def pairs_of_panels(panels: Sequence[Panel]) -> list[tuple[str, str]]:
    """List the pairs that pictures compare, or, where none does, every pair of the groups that they show.

    Args:
        panels: The panels.

    Returns:
        The pairs, each once.
    """
    compared = [pair for panel in panels if isinstance(panel, DifferencePanel) for pair in panel.pairs]
    if compared:
        return list(dict.fromkeys(compared))
    groups = dict.fromkeys(group for panel in panels if isinstance(panel, SpectraPanel) for group in panel.groups)
    in_front = dict.fromkeys(pair for panel in panels if isinstance(panel, SpectraPanel) for pair in panel.pairs)
    return list(in_front) or [(a, b) for a in groups for b in groups if a != b]


def _source_sentence(provenance: Provenance) -> str:
    few = f" (fewer than {provenance.min_group})"
    sizes = ", ".join(
        f"{group}: n = {size:.0f}{few if size < provenance.min_group else ''}"
        for group, size in provenance.sizes.items()
        if not math.isnan(size)
    )
    kind = {True: "SIMULATED DATA: ", False: "Real data: ", None: "Data: "}[provenance.simulated]
    return f"{kind}{provenance.source}{'; ' if sizes else ''}{sizes}."


def _reading_sentences(panels: Sequence[Panel]) -> list[str]:
    """How the picture is to be read, the most needed first."""
    differences = [panel for panel in panels if isinstance(panel, DifferencePanel)]
    sentences = []
    if len(differences) < len(panels):
        sentences.append("Singular values of each group's mean gradient; a paler line is a higher index (σ1, σ4, …).")
    seeds = max((panel.seeds for panel in panels), default=1)
    if seeds > 1:
        band = "mean and standard deviation" if seeds >= FEWEST_FOR_BAND else "a line for each"
        sentences.append(f"{seeds} seeds: {band} in panels of spectra; maps are of the first, tests of all together.")
    if differences:
        sentences += _difference_sentences(differences)
    return sentences


def _difference_sentences(panels: Sequence[DifferencePanel]) -> list[str]:
    sentences = ["A difference is an association with the label, which need not be its cause."]
    if any(panel.tested for panel in panels):
        sentences.insert(0, "p: labels permuted over subjects, family-wise over a panel's layers and pairs.")
    if any(panel.paper for panel in panels):
        sentences.append("Margins: medians, dark where the paper's t-test has p < 0.05: descriptive, not calibrated.")
    elif any(panel.tested for panel in panels):
        sentences.append("Margins: medians less those of permuted labels, plain medians without a test; exploratory.")
    else:
        sentences.append("Margins: medians.")
    return [*sentences, "Margins are pale where three quarters of the cells cannot be compared."]


def _rest(panels: Sequence[Panel]) -> list[str]:
    """What stands in the caption where there is one: how much is grey, and the runs."""
    grey = [panel.grey for panel in panels if isinstance(panel, DifferencePanel) and panel.grey]
    return [*grey, *runs_sentences(panels)]


def runs_sentences(panels: Sequence[Panel]) -> list[str]:
    """Name the runs that panels show.

    Args:
        panels: The panels.

    Returns:
        A sentence; none where the runs have no names.
    """
    letters: dict[str, list[str]] = {}
    for panel in panels:
        letters.setdefault(panel.provenance.run_id, []).append(panel.letter)
    runs = [f"{', '.join(of_run)} {run_id}".strip() for run_id, of_run in letters.items() if run_id]
    return [f"Run{'s' * (len(runs) > 1)}: {'; '.join(runs)}."] if runs else []
