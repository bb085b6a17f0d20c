"""Reading what a spectra file holds of relabelled partitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from autospec.store.read import opened
from autospec.store.schema import (
    PERMUTATION_EPOCHS,
    PERMUTATION_LOSS,
    PERMUTATION_PAIRS,
    PERMUTATION_RATIOS,
    PERMUTATION_REASONS,
    PERMUTATION_REFUSED,
    PERMUTATION_ROOT,
    PERMUTATION_STRATA,
    PERMUTATION_SUBJECTS,
    permutation_field,
)

Floats = npt.NDArray[np.float32]
Pair = tuple[str, str]


@dataclass(frozen=True)
class PermutationRatios:
    """What two groups differ in under every partition of their people, the observed one first.

    ``ratios[layer][name]`` (epoch, pair, partition, ...) are the ``NULL_RATIOS`` of a layer, ``loss`` (epoch, pair,
    partition) that of the mean losses, or None. ``pairs`` with ``people`` in each group and the ``strata`` that labels
    were exchanged within; ``refused`` says of each other pair why it was not relabelled. ``relabellings`` is the same
    for runs that exchanged the same people in the same way.
    """

    epochs: npt.NDArray[np.int64]
    pairs: tuple[Pair, ...]
    subjects: npt.NDArray[np.int64]
    strata: tuple[str, ...]
    refused: Mapping[Pair, str]
    permutation_design: str
    ratios: Mapping[str, Mapping[str, Floats]]
    loss: Floats | None

    @property
    def permutations(self) -> int:
        """The number of relabellings of each pair, the observed partition not counted."""
        first = next(iter(self.ratios.values()), None)
        return 0 if first is None else first["log_norm"].shape[2] - 1


def read_permutations(path: Path | bytes, layers: list[str]) -> PermutationRatios | None:
    """The relabelled partitions of a file; None where its writer knew nothing of people."""
    with opened(path) as file:
        if PERMUTATION_PAIRS not in file:
            return None
        refused = zip(_pairs(file, PERMUTATION_REFUSED), _texts(file, PERMUTATION_REASONS), strict=True)
        relabelled = [layer for layer in layers if permutation_field(layer, "log_ratio").path in file]
        ratios = {
            layer: {name: file[permutation_field(layer, name).path][()] for name in PERMUTATION_RATIOS}
            for layer in relabelled
        }
        return PermutationRatios(
            epochs=file[PERMUTATION_EPOCHS.path][()]
            if PERMUTATION_EPOCHS.path in file
            else np.empty(0, dtype=np.int64),
            pairs=tuple(_pairs(file, PERMUTATION_PAIRS)) if relabelled else (),
            subjects=file[PERMUTATION_SUBJECTS][()],
            strata=tuple(_texts(file, PERMUTATION_STRATA)),
            refused=dict(refused),
            permutation_design=str(file[PERMUTATION_ROOT].attrs["relabellings"]),
            ratios=ratios,
            loss=file[PERMUTATION_LOSS.path][()] if PERMUTATION_LOSS.path in file else None,
        )


def _texts(file: h5py.File, path: str) -> list[str]:
    return [text.decode() for text in file[path][()]]


def _pairs(file: h5py.File, path: str) -> list[Pair]:
    return [(a.decode(), b.decode()) for a, b in file[path][()]]
