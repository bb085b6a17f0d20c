"""Pictures of any spectra file, by the code of the paper's figures: its spectra, and how two groups differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autospec.analysis.figure_table import every_test
from autospec.analysis.run_tables import RunTables
from autospec.errors import AutoSpecError
from autospec.figures.contents import Panel
from autospec.figures.page import draw_page
from autospec.figures.run_panels import Heading, difference_panel, spectra_panel
from autospec.figures.saving import Picture, save_picture
from autospec.figures.style import print_style
from autospec.store.groups import Pair, pairs_of
from autospec.store.layers_by_name import layers_by_name
from autospec.store.read import Spectra, load_spectra
from autospec.store.schema import ALL, GRADIENT

MOST_EPOCHS = 400
"""A line has no more points than can be told apart on a page."""
MOST_INDICES = 64
"""So many of the largest singular values are drawn of each layer."""
MOST_ROWS, MOST_VALUES, FEWEST_EPOCHS = 1_500_000, 20_000_000, 50
"""Of wide layers and many groups fewer epochs are drawn, so that the table and the arrays fit into memory."""
MOST_LAYERS = 12
"""So many layers are shown where none are chosen."""
NAMES = (GRADIENT, "floor_gradient", "rows", "own_rows", "rank_bound")

Names = str | Sequence[str]
"""One name or pattern (``encoder.*``), or several."""


def plot(
    spectra: Spectra, layers: Names | None = None, groups: Names | None = None, path: str | Path | None = None
) -> Picture:
    """Draw the singular values of each layer's gradient over training: of each group's mean gradient.

    Args:
        spectra: The spectra of a run.
        layers: Layers by name or pattern; None takes the first twelve.
        groups: The groups in front; None takes the disjoint groups.
        path: A file to save the picture to.

    Returns:
        The picture; a notebook shows it.

    Raises:
        AutoSpecError: There is no such layer or group, gradient spectra were not recorded, or the picture cannot be
            saved.
    """
    shown = _groups(spectra, groups)
    run, heading = _read(spectra, layers, "Singular values of the mean gradient")
    return _draw(spectra_panel([run], heading, shown), path)


def plot_differences(
    spectra: Spectra, a: str, b: str, layers: Names | None = None, path: str | Path | None = None
) -> Picture:
    """Draw where the spectra of two groups differ: of each group's mean gradient, and with a p where there is a test.

    Args:
        spectra: The spectra of a run.
        a: The first group.
        b: The second group, which shares no sample with the first.
        layers: Layers by name or pattern; None takes the first twelve.
        path: A file to save the picture to.

    Returns:
        The picture; a notebook shows it.

    Raises:
        AutoSpecError: There is no such layer or group, the groups share samples, gradient spectra were not recorded,
            or the picture cannot be saved.
    """
    _check_pair(spectra, a, b)
    run, heading = _read(spectra, layers, "", [(a, b)])
    # the family is every layer and pair of the file, whatever is drawn of it, so that p is the one of a figure's table
    every_pair = pairs_of(spectra.group_names, spectra.members)
    tests = every_test([spectra.permutations], spectra.layers, every_pair, {GRADIENT: run.comparisons})
    panel = difference_panel(run, tests, [(a, b)], heading)
    return _draw(replace(panel, tested=bool(panel.tests["p"].notna().any())), path)


@dataclass(frozen=True)
class _Chosen:
    """The layers that a picture shows, and what its footer says of the others."""

    layers: list[str]
    note: str


def _read(spectra: Spectra, layers: Names | None, title: str, pairs: Sequence[Pair] = ()) -> tuple[RunTables, Heading]:
    """What is drawn of a file, and nothing more, into memory."""
    chosen = _choose_layers(spectra, layers)
    names = (*NAMES, "cosine") if pairs else NAMES
    loaded = load_spectra(spectra.path, chosen.layers, _most_epochs(spectra, chosen.layers), names)
    recorded, drawn = len(loaded.epochs), loaded.scaled(chosen.layers[0]).sizes["epoch"]
    thinned = "" if drawn == recorded else f"{drawn} of {recorded} recorded epochs are drawn."
    wide = any(min(spectra.shapes[layer]) > MOST_INDICES for layer in chosen.layers)
    cut = f"Of each layer the {MOST_INDICES} largest singular values are drawn." if wide else ""
    note = " ".join(text for text in (chosen.note, thinned, cut) if text)
    return RunTables(loaded, pairs, MOST_INDICES), Heading(letter="", title=title, layers=chosen.layers, note=note)


def _most_epochs(spectra: Spectra, layers: Sequence[str]) -> int:
    widths = [min(spectra.shapes[layer]) for layer in layers]
    rows = len(spectra.group_names) * sum(min(width, MOST_INDICES) for width in widths)
    values = len(spectra.group_names) * sum(widths)
    return max(min(MOST_EPOCHS, MOST_ROWS // rows, MOST_VALUES // values), FEWEST_EPOCHS)


def _choose_layers(spectra: Spectra, layers: Names | None) -> _Chosen:
    if not spectra.layers:
        raise AutoSpecError(f"{spectra.where} has no layers")
    if layers is None:
        first, rest = spectra.layers[:MOST_LAYERS], spectra.layers[MOST_LAYERS:]
        note = (
            f"The first {MOST_LAYERS} of {len(spectra.layers)} layers are shown; choose others by layers=."
            if rest
            else ""
        )
        return _Chosen(first, note)
    return _Chosen(layers_by_name(spectra, layers), "")


def _groups(spectra: Spectra, groups: Names | None) -> Sequence[str] | None:
    if groups is None:
        return None if len(spectra.group_names) > 1 else [ALL]
    chosen = [groups] if isinstance(groups, str) else list(groups)
    for group in chosen:
        _check_group(spectra, group)
    return chosen


def _check_group(spectra: Spectra, group: str) -> None:
    if group not in spectra.group_names:
        raise AutoSpecError(f"{spectra.where} has no group {group!r}; it has {', '.join(spectra.group_names)}")


def _check_pair(spectra: Spectra, a: str, b: str) -> None:
    for group in (a, b):
        _check_group(spectra, group)
    if ALL in (a, b) or spectra.members[a] & spectra.members[b]:
        raise AutoSpecError(f"{a} and {b} share samples; compare two groups that share none")


def _draw(panel: Panel, path: str | Path | None) -> Picture:
    picture = draw_page(panel)
    if path is not None:
        with print_style():
            save_picture(picture, [Path(path)])
    return picture
