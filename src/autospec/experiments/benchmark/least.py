"""The least that exact spectra can cost: the eigenvalues alone of the matrices that they are had from."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from autospec.experiments.benchmark.problems import Problem
from autospec.recording.recorder import SpectralRecorder

STATISTICS = ("gradient", "adjoint")
"""Activations are left out: those that are the same at every step are decomposed once."""


def gram_sides(problem: Problem) -> list[int]:
    """The smaller side of every matrix that a record has spectra of: each layer's, for each group and for all samples.

    That may be the number of a group's rows.
    """
    model = copy.deepcopy(problem.model)
    names = [f"group {label}" for label in range(int(problem.group.max()) + 1)]
    with SpectralRecorder(model, groups=names, statistics=STATISTICS, floor="formula") as recorder:
        with recorder.batch(problem.group):
            problem.losses(model).mean().backward()
        recorder.end_epoch()
        layers = [recorder.spectra[name] for name in recorder.layers]
    sides = []
    for layer in layers:
        rows = layer["rows"].values[0].tolist()
        sides += [min(count, layer[name].shape[-1]) for name in STATISTICS for count in rows]
    return sides


def grams_of_sides(sides: list[int]) -> list[Tensor]:
    """A Gram matrix in float64 of each size, of random rows."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn((side, side), generator=generator, dtype=torch.float64) for side in sides]
    return [one.mT @ one for one in rows]
