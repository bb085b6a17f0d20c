"""A spectra file watched while a run writes it: sparklines in the terminal, redrawn whenever the file is replaced.

The writer replaces the file whole (``store.atomic``), so that a reader sees one state or the next and training never
waits for it. Reading takes at most a twentieth of the time.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from autospec.figures.terminal import SPARK_WIDTH, as_text, sparkline
from autospec.store.groups import disjoint_groups
from autospec.store.layers_by_name import layers_by_name
from autospec.store.read import Spectra, load_spectra, open_spectra
from autospec.store.schema import ALL, GRADIENT

POLL_S, LONGEST_S = 1.0, 10.0
"""Seconds between two looks, at least and at most."""
READING_SHARE = 0.05
"""The part of the time that reading takes, of one processor."""
MOST_GROUPS = 6
"""So many groups have a column of their own."""

Wait = Callable[[float], object]


def watch(path: Path, layers: Sequence[str] | None, out: TextIO | None = None, wait: Wait = time.sleep) -> None:
    """Redraw a file until its run is complete; Ctrl-C ends in one line.

    Args:
        path: The file, which need not be there yet.
        layers: Layers by name or pattern; None takes as many as fit.
        out: Where to draw; None is standard output.
        wait: Waits for some seconds.

    Raises:
        AutoSpecError: The file is of something else, or has no such layer.
    """
    out = out or sys.stdout
    try:
        for spectra in _states(path, out, wait):
            _redraw(screen(spectra, layers, _height(out)), out)
        out.write(f"{path} is complete\n")
    except KeyboardInterrupt:
        out.write(f"\r\x1b[Kno longer watching {path}\n" if out.isatty() else f"no longer watching {path}\n")
    out.flush()


def _states(path: Path, out: TextIO, wait: Wait) -> Iterator[Spectra]:
    """The file's content whenever it was replaced, up to that of a complete run."""
    seen: tuple[int, ...] | None = None
    if not path.exists():
        out.write(f"waiting for {path}\n")
        out.flush()
    while True:
        spent = 0.0
        state = _state(path)
        if state is not None and state != seen:
            started = time.process_time()
            spectra = open_spectra(path)
            yield spectra
            seen, spent = state, time.process_time() - started
            if spectra.complete:
                return
        wait(min(max(POLL_S, spent / READING_SHARE), LONGEST_S))


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes whenever the file is replaced; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def screen(spectra: Spectra, layers: Sequence[str] | None = None, height: int = 40) -> str:
    """Draw a run as text: its losses, and of each layer σ₁ of the mean gradients.

    Args:
        spectra: The spectra of a run.
        layers: Layers by name or pattern; None takes as many as fit.
        height: How many lines there are.

    Returns:
        The lines.
    """
    epochs = spectra.epochs
    state = "complete" if spectra.complete else "not complete"
    lines = [f"{spectra.where}   {state}"]
    if not len(epochs):
        return "\n".join([*lines, "no spectra are recorded yet"])
    lines.append(f"epoch {epochs[-1]}   {len(epochs)} records")
    curves = spectra.training
    lines += [f"{name.replace('_', ' '):<16} {_curve(curves[name].to_numpy(np.float64))}" for name in map(str, curves)]
    chosen = layers_by_name(spectra, layers)
    room = max(3, height - len(lines) - 4)
    shown = chosen if len(chosen) <= room else chosen[: room - 1]
    lines += ["", as_text(_table(spectra, shown))]
    if len(shown) < len(chosen):
        lines.append(f"and {len(chosen) - len(shown)} more layers; choose by --layers")
    return "\n".join(lines)


def _curve(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{sparkline(values)}  {finite[-1]:.4g}" if len(finite) else ""


def _table(spectra: Spectra, layers: Sequence[str]) -> pd.DataFrame:
    """σ₁ over training for the whole batch, and now for each group."""
    groups = [ALL, *disjoint_groups(spectra.group_names, spectra.members)][: 1 + MOST_GROUPS]
    rows = []
    for layer in layers:  # one at a time, so that memory is bounded
        loaded = load_spectra(spectra.path, [layer], 4 * SPARK_WIDTH, (GRADIENT,))
        course = loaded.scaled(layer).sel(index=1)
        last = {group: float(course.sel(group=group).values[-1]) for group in groups}
        rows.append({"σ₁ over training": sparkline(course.sel(group=ALL).values), **last})
    return pd.DataFrame(rows, index=pd.Index(layers, name="layer"))


def _height(out: TextIO) -> int:
    return shutil.get_terminal_size().lines if out.isatty() else 40


def _redraw(text: str, out: TextIO) -> None:
    """Clear the screen and draw, in a terminal; elsewhere add to what is there."""
    out.write(f"\x1b[H\x1b[2J{text}\n" if out.isatty() else f"{text}\n\n")
    out.flush()
