"""What is in a spectra file, in words, and what can be asked of it."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from autospec.harmless import visible
from autospec.store.groups import disjoint_groups
from autospec.store.schema import ALL

if TYPE_CHECKING:
    from autospec.store.read import Spectra

MOST_LAYERS = MOST_GROUPS = 20


def describe(spectra: Spectra) -> str:
    """Describe a run's spectra: the run, its groups and layers, and what can be asked.

    Args:
        spectra: The spectra of a run.

    Returns:
        Several lines.
    """
    contents = [*_run(spectra), _groups(spectra), *_layers(spectra)]
    return "\n".join([f"Spectra: {spectra.where}", *contents, "", *_list_questions(spectra)])


def _run(spectra: Spectra) -> list[str]:
    epochs = spectra.epochs
    recorded = f"{len(epochs)}, from {epochs[0]} to {epochs[-1]}" if len(epochs) else "none recorded yet"
    state = "complete" if spectra.complete else "not complete"
    source = spectra.attributes.get("source", "")
    simulated = " (SIMULATED DATA)" if spectra.simulated else ""
    lines = [visible(f"run      {spectra.run_id}")] if spectra.run_id else []
    lines += [visible(f"data     {source}{simulated}")] if source or simulated else []
    return [*lines, f"epochs   {recorded}; {state}"]


def _groups(spectra: Spectra) -> str:
    disjoint = disjoint_groups(spectra.group_names, spectra.members)
    margins = [name for name in spectra.group_names if name != ALL and name not in disjoint]

    def named(names: list[str]) -> str:
        more = [f"and {len(names) - MOST_GROUPS} more"] if len(names) > MOST_GROUPS else []
        return ", ".join(
            [
                visible(name) if isnan(spectra.sizes[name]) else f"{visible(name)} ({spectra.sizes[name]:.0f})"
                for name in names[:MOST_GROUPS]
            ]
            + more
        )

    return f"groups   {named([ALL, *disjoint])}{f'; margins {named(margins)}' if margins else ''}"


def _layers(spectra: Spectra) -> list[str]:
    if not spectra.layers:
        return ["layers   none"]
    shown = spectra.layers[:MOST_LAYERS]
    shapes = spectra.shapes
    width = max(len(visible(name)) for name in shown)
    rows = [f"{visible(name):<{width}}   {' × '.join(map(str, shapes[name]))}".rstrip() for name in shown]
    rows += [f"and {len(spectra.layers) - len(shown)} more"] if len(spectra.layers) > len(shown) else []
    return [f"layers   {rows[0]}", *(f"         {row}" for row in rows[1:])]


def _list_questions(spectra: Spectra) -> list[str]:
    """What can be asked, with names that are there."""
    questions = [(".summary()", "what happened in each layer"), (".plot()", "singular values over training")]
    disjoint = disjoint_groups(spectra.group_names, spectra.members)
    if len(disjoint) > 1:
        pair = visible(f'"{disjoint[0]}", "{disjoint[-1]}"')
        questions.append((f".plot_differences({pair})", "where two groups differ"))
    if spectra.layers:
        questions.append((visible(f'["{spectra.layers[0]}"]'), "a layer's statistics, labelled"))
    questions.append((".to_frame()", "a tidy table"))
    width = max(len(call) for call, _ in questions)
    lines = [f"{call:<{width}}   {answer}" for call, answer in questions]
    return [f"ask      {lines[0]}", *(f"         {line}" for line in lines[1:])]
