"""The benchmark as a page: what was measured, its tables, and who is faster than AutoSpec."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch

from autospec.experiments.benchmark.arms import FAST, OTHERS
from autospec.experiments.benchmark.growth import Point, growth_table
from autospec.experiments.benchmark.table import Row, apart, memory_table, reasons, time_table

_INTRODUCTION = """# What recording costs

`make benchmark` writes `outputs/benchmark/`: these tables, `benchmark.json` (a row for each model and method) and a
picture.
The paper's seven architectures, autoencoding random inputs of the size of its data at width 32; one block of BERT-base
(768 wide, 3072 between, 8 sequences of 64 tokens of a falling spectrum); a bottleneck block of each stage of ResNet-50
(8 images of 64 × 64 pixels). Four groups, Adam, float32, one thread. Every method takes the spectra of every weight's
gradient for every group and for all samples, at every step unless it says otherwise; the engines also give cosines,
norms and a noise floor (by the formula, unless said). The methods take turns in one process; a ratio is processor time
over that of plain training in the same round: the median of the rounds (and the quartiles). The program keeps the
memory that it frees; else it is had anew at some steps, as chance has it, which took up to half of plain training's
time. Memory is what the peak of a process of its own adds over what plain training's adds.

- *fast, hooks, per_group, passes, fused*: AutoSpec's engines; *all statistics* are activations and adjoints as well
- *loop over groups*: a forward and backward pass for each group, `svdvals` of `.grad`
- *C backward passes*: one forward pass, a backward pass for each group, `svdvals`
- *vmap(grad), Opacus, BackPACK*: the gradient of every sample, summed by group, `svdvals`
- *plain, eigenvalues alone*: training, and the eigenvalues of matrices as large as the smaller Gram matrices of every
  layer's gradients and adjoints, from LAPACK and in float64: *all statistics* by Gram matrices cannot cost less
- *fast, leading 16*: `leading=16, tolerance=1e-6`, certified

**Bold: faster than AutoSpec's `fast`, or with less memory.**
"""


def page(rows: Sequence[Row], points: Sequence[Point], rounds: int, note: str = "") -> str:
    """The page in Markdown.

    Args:
        rows: the table's.
        points: of growth curves; may be none.
        rounds: how many rounds the ratios are medians of.
        note: a sentence on the circumstances of the measurement.
    """
    machine = f"{rounds} rounds, torch {torch.__version__}, {platform.machine()}, {platform.system()}. {note}".strip()
    parts = [_INTRODUCTION, machine, apart(rows), "## Time", time_table(rows), faster(rows)]
    if any(row.memory_ratio is not None for row in rows):
        parts += ["## Memory", memory_table(rows)]
    cannot = reasons(rows)
    if cannot:
        parts += ["## What a method cannot do", "\n".join(f"- {line}" for line in cannot)]
    if points:
        parts += ["## Growth", _GROWTH, *_growth(points)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


_GROWTH = """Two square layers of a perceptron, width 64, 4 groups, 1,000 samples where nothing else is said (500 for
the width, 200 sequences for the length); the least of five steps. The law is the paper's, L·T·min(mn², m²n), here
(groups + 1) Σ min(mn², m²n) multiplications for decomposing; forming the groups' gradients takes rows × Σ mn, as the
backward pass does. A curve ends where a step takes longer than 20 s."""


def _growth(points: Sequence[Point]) -> list[str]:
    axes = dict.fromkeys(point.axis for point in points)
    return [growth_table([point for point in points if point.axis == axis]) for axis in axes]


def faster(rows: Sequence[Row]) -> str:
    """Who is faster than ``fast`` on which model, in a sentence."""
    own = {row.model: row.time_ratio for row in rows if row.method == FAST and row.time_ratio is not None}
    faster_ones = [
        f"{row.method} on {row.model} ({row.time_ratio:.2f} against {own[row.model]:.2f})"
        for row in rows
        if row.method in OTHERS and row.time_ratio is not None and row.time_ratio < own.get(row.model, 0.0)
    ]
    return (
        f"Faster than `fast`: {'; '.join(faster_ones)}."
        if faster_ones
        else "No other method is faster than `fast` on any model."
    )
