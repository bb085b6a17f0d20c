"""The part of a report that shows one run: what it is, what happened in each layer, its tests, spectra, provenance."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from autospec.analysis.layer_summary import COLUMNS as SUMMARY_COLUMNS
from autospec.analysis.layer_summary import summarise
from autospec.errors import AutoSpecError
from autospec.figures.report.files import CONFIG, PROVENANCE
from autospec.figures.report.group_tests import run_tests
from autospec.figures.report.plot_data import plot_data
from autospec.store.read import Spectra
from autospec.store.schema import GRADIENT
from autospec.webpage.document import escape, json_script
from autospec.webpage.table import Column, render_table

SUMMARY_HEADS = {
    "layer": "layer",
    "sigma1": "σ₁",
    "rank": "rank",
    "effective_rank": "effective rank",
    "effective_rank_change": "its change",
    "cosine": "cosine",
    "cancellation": "cancellation",
    "verdict": "verdict",
}
MOST_SUMMARISED = 400
"""Layers in the table; a file may hold thousands."""
LONGEST_TEXT = 20_000
"""Characters of a configuration or an attribute."""
NOT_PROVENANCE = ("config", "facts", "structure_digest", "text_checksums", "complete", "simulated", "source", "run_id")
"""Attributes that are shown elsewhere, or say nothing to readers."""


@dataclass(frozen=True)
class RunSection:
    """A run in the report.

    Attributes:
        row: What the table of runs says of it: data, groups, layers, epochs, last loss, state.
        html: Its section.
        data: The script element with the data of its plots; empty where there are none.
    """

    row: tuple[object, ...]
    html: str
    data: str = field(default="", repr=False)


ROW_HEADS = ("data", "groups", "layers", "recorded epochs", "last training loss", "state")


def run_section(spectra: Spectra, name: str, identifier: str, most_values: int) -> RunSection:
    """Write the section of a run.

    Args:
        spectra: The spectra of a run.
        name: What the run is called.
        identifier: The section's id in the page.
        most_values: About so many singular values at most are inside the page; 0 leaves the plots out.

    Returns:
        The section.

    Raises:
        AutoSpecError: The file cannot be read.
    """
    parts = [f'<section class="run" id="{identifier}"><h3>{escape(name)}</h3>', _facts(spectra)]
    data = ""
    if spectra.layers and len(spectra.epochs) and GRADIENT in spectra.lazy(spectra.layers[0]):
        parts.append(_summary(spectra))
        plots, data = _plots(spectra, identifier, most_values)
        parts += [plots, run_tests(spectra)]
    else:
        parts.append("<p>No gradient spectra are recorded, so there is nothing to draw.</p>")
    parts += [_provenance(spectra), "</section>"]
    return RunSection(_row(spectra), "\n".join(parts), data)


def _row(spectra: Spectra) -> tuple[object, ...]:
    losses = spectra.training.get("training_loss")
    last = None if losses is None or losses.empty else float(losses.iloc[-1])
    return (
        _data_words(spectra),
        ", ".join(spectra.group_names[1:]) or "none",
        len(spectra.layers),
        len(spectra.epochs),
        last,
        "complete" if spectra.complete else "not complete",
    )


def _data_words(spectra: Spectra) -> str:
    source = str(spectra.attributes.get("source", "")) or "source not named"
    return f"{source} (SIMULATED DATA)" if spectra.simulated else source


def _facts(spectra: Spectra) -> str:
    epochs = spectra.epochs
    groups = (name if isnan(size) else f"{name} (n = {size:.0f})" for name, size in spectra.sizes.items())
    facts = {
        "Data": _data_words(spectra),
        "Groups": ", ".join(groups),
        "Epochs": f"{len(epochs)} recorded, from {epochs[0]} to {epochs[-1]}" if len(epochs) else "none recorded yet",
        "State": "complete" if spectra.complete else "not complete",
        "File": spectra.where,
    }
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{escape(text)}</dd>' for name, text in facts.items())}</dl>"


def _summary(spectra: Spectra) -> str:
    shown = spectra.layers[:MOST_SUMMARISED]
    table = summarise(spectra, shown).reset_index()[list(SUMMARY_HEADS)]
    columns = [Column(heading, SUMMARY_COLUMNS[name]) for name, heading in SUMMARY_HEADS.items()]
    rows = list(table.astype(object).itertuples(index=False, name=None))
    cut = f"<p>The first {len(shown)} of {len(spectra.layers)} layers.</p>" if len(shown) < len(spectra.layers) else ""
    return f"<h4>What happened in each layer</h4>{cut}{render_table(columns, rows, 'layers')}"


def _plots(spectra: Spectra, identifier: str, most_values: int) -> tuple[str, str]:
    """Where the plots go, and the data that they are made of."""
    if not most_values:
        return "<p>Not drawn, since the page holds many runs: a report of this run alone draws it.</p>", ""
    plots = plot_data(spectra, most_values)
    notes = f"<p>Shown are {escape('; '.join(plots.notes))}. The file holds all.</p>" if plots.notes else ""
    place = f'<div class="spectra" data-source="{identifier}-data"></div>'
    about = (
        "<p>Singular values of each group's mean gradient, so that groups of unequal size can be compared; those below "
        "their noise floor are left out.</p>"
    )
    return f"<h4>Spectra</h4>{about}{notes}{place}", json_script(f"{identifier}-data", plots.content)


def _provenance(spectra: Spectra) -> str:
    """What the file and the files beside it say of how the run was made, folded."""
    facts = {name: value for name, value in spectra.attributes.items() if name not in NOT_PROVENANCE}
    folder = spectra.path.parent if isinstance(spectra.path, Path) else None
    beside = _read_json(folder / PROVENANCE) if folder else {}
    table = "".join(_fact(name, value) for name, value in sorted({**facts, **beside}.items()))
    config = str(spectra.attributes.get("config", "")) or _read_text(folder / CONFIG if folder else None)
    facts_table = f'<div class="wide"><table class="facts">{table}</table></div>'
    parts = [f'<details class="printed"><summary>Provenance</summary>{facts_table}</details>']
    if config:
        parts.append(f"<details><summary>Configuration</summary><pre>{escape(_cut(config))}</pre></details>")
    return "".join(parts)


def _fact(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=1, default=_plain)
    return f"<tr><th>{escape(name)}</th><td><pre>{escape(_cut(text))}</pre></td></tr>"


def _plain(value: Any) -> Any:
    """A number or array of HDF5's as JSON can hold it."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}\n… ({len(text)} characters; the file has all)"


def _read_text(path: Path | None) -> str:
    try:
        return path.read_text(encoding="utf-8") if path and path.is_file() else ""
    except (OSError, UnicodeError) as error:
        raise AutoSpecError(f"{path} cannot be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        return dict(json.loads(text)) if text else {}
    except (ValueError, TypeError) as error:
        raise AutoSpecError(f"{path} is damaged: {error}") from error
